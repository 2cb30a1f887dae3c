// Forms that change much ask first; a button pressed twice sends once.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.dataset.confirm && !window.confirm(form.dataset.confirm)) {
    event.preventDefault();
    return;
  }
  if (form.method === "post" && !event.defaultPrevented) {
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = "yes";
  }
});
// Coming back with the browser's own button shows the page as it was left.
window.addEventListener("pageshow", () => {
  for (const form of document.forms) delete form.dataset.sent;
});
