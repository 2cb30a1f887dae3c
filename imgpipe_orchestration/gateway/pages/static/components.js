// The choices beside the image are its attributes; what to write for them stands below.
const shown = document.getElementById("shown");
const written = document.getElementById("written");

function write() {
  const attributes = [...shown.attributes].filter(({ name }) => !["id", "info"].includes(name));
  const words = attributes.map(({ name, value }) => `${name}="${name === "signature" ? "…" : value}"`); // it is short-lived
  written.textContent = `<smart-image ${words.join(" ")}></smart-image>`;
}

for (const choice of document.querySelectorAll("[data-attribute]")) {
  choice.addEventListener("change", () => {
    shown.setAttribute(choice.dataset.attribute, choice.value);
    write();
  });
}
