// What somebody typed or chose in a form is in it again on the page that says that nothing was done: the session had
// ended, the page was out of date, a store was away, or something was wrong. Until then it is kept in this tab; no secret
// is, no file, and nothing that was picked of a list. On the answer to a form (data-typed) it is what the fields came with.
const TYPED = "textarea, select, input:not([type=hidden], [type=password], [type=file], .pick *, .selecting *)";

function typed(form) {
  const all = [...form.elements].filter((one) => one.matches(TYPED));
  const fields = "typed" in form.dataset ? all : all.filter(isChanged);
  return fields.map(({ name, value, checked }) => [name, { value, checked }]);
}

// What is chosen of a select is always kept.
function isChanged({ value, defaultValue, checked, defaultChecked }) {
  return value !== defaultValue || checked !== defaultChecked;
}

// An image's page has a form for each field and the review one for each item, all of one action.
function named(form) {
  const parts = ["field", "kind", "item"].map((name) => form.elements.namedItem(name)?.value);
  return [form.getAttribute("action"), ...parts].join(" ");
}

function give() {
  if (location.pathname === "/login" || document.getElementById("error")) return; // on the way back
  const kept = JSON.parse(sessionStorage.getItem("typed"));
  sessionStorage.removeItem("typed");
  if (kept?.page !== location.pathname || !new URLSearchParams(location.search).has("trouble")) return;
  const form = [...document.forms].find((one) => named(one) === kept.form);
  form?.closest("details")?.setAttribute("open", "");
  for (const [name, was] of form ? kept.values : []) Object.assign(form.elements[name], was);
}

// Forms that change much ask first; a button pressed twice sends once.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.dataset.confirm && !window.confirm(form.dataset.confirm)) {
    event.preventDefault();
    return;
  }
  if (form.method === "post" && !event.defaultPrevented) {
    if (form.dataset.sent) event.preventDefault();
    if (event.submitter?.value !== "download") form.dataset.sent = "yes"; // after one the page stays
    const values = typed(form);
    const kept = { page: location.pathname, form: named(form), values };
    if (values.length) sessionStorage.setItem("typed", JSON.stringify(kept));
  }
});

function unsend() {
  for (const form of document.forms) delete form.dataset.sent;
}

// Coming back with the browser's own button shows the page as it was left, and so does stopping what was sent.
window.addEventListener("pageshow", unsend);
window.navigation?.addEventListener("navigate", ({ signal }) => signal.addEventListener("abort", unsend));

// What happened is told once, and not again where the page is reloaded or returned to.
function once() {
  const url = new URL(location.href);
  const said = ["notice", "trouble", "undo"].filter((name) => url.searchParams.has(name));
  if (!said.length || document.getElementById("error")) return;
  if (!history.state?.told) {
    history.replaceState({ told: true }, "");
    return;
  }
  for (const name of said) url.searchParams.delete(name);
  history.replaceState(null, "", url);
  for (const one of document.querySelectorAll("#said > *")) one.remove();
}

// A question is the answer to a form, without which a browser cannot come back to it: it comes to where Cancel leads.
const cancel = document.getElementById("cancel");
if (cancel) history.replaceState(null, "", cancel.href);
give();
once();
