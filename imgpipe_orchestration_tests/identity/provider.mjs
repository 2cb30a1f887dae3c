// A real OpenID Connect provider for the tests: anybody signs in under any name, and has the groups of GROUPS.
// PORT, CLIENT (JSON), GROUPS (JSON by account), JWK (JSON), SKEW (seconds that its clock is off), SLOPPY.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const skew = Number(process.env.SKEW || 0) * 1000;
if (skew) {
  const now = Date.now.bind(Date);
  Date.now = () => now() + skew;
}

const require = createRequire(process.env.NPM + "/");
const { Provider } = await import(pathToFileURL(require.resolve("oidc-provider")));
const groups = JSON.parse(process.env.GROUPS);
const sloppy = Boolean(process.env.SLOPPY); // knows no groups, takes the secret in the body only, has no userinfo

const provider = new Provider(`http://127.0.0.1:${process.env.PORT}`, {
  clients: [JSON.parse(process.env.CLIENT)],
  jwks: { keys: [JSON.parse(process.env.JWK)] },
  claims: { openid: ["sub"], email: ["email", "email_verified"], ...(!sloppy && { groups: ["groups"] }) },
  scopes: ["openid", "email", "profile", ...(sloppy ? [] : ["groups"])],
  conformIdTokenClaims: !sloppy,
  ...(sloppy && { clientAuthMethods: ["client_secret_post"] }),
  cookies: { keys: ["a key for the tests"] },
  pkce: { required: () => true },
  features: { devInteractions: { enabled: true }, rpInitiatedLogout: { enabled: true } },
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({
      sub: id,
      email: `${id}@example.com`,
      email_verified: id !== "nobody" && "true", // a text, as some providers have it
      groups: groups[id] || [],
    }),
  }),
});
if (sloppy) provider.use((ctx, next) => (ctx.path === "/me" ? ctx.throw(404) : next()));
provider.listen(Number(process.env.PORT), "127.0.0.1", () => console.log("listening"));
