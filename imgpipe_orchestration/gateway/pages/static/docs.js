window.addEventListener("DOMContentLoaded", () => {
  SwaggerUIBundle({
    url: "/openapi.json",
    dom_id: "#swagger-ui",
    deepLinking: true,
    docExpansion: "list",
    persistAuthorization: false, // keys stay in memory: another script of this origin must not find them
    validatorUrl: null, // would ask another host
  });
});
