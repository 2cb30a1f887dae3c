// Boxes are picked one by one, with Shift up to the one before, or all that the page shows.
let last;

function boxes() {
  return [...document.querySelectorAll('input[name="what"][form="selected"]')];
}

function count() {
  const form = document.getElementById("selected");
  if (!form) return;
  const every = form.elements.every?.checked;
  const picked = boxes().filter((box) => box.checked).length;
  document.getElementById("picked").textContent = every ? "" : `${picked} selected`;
  for (const button of form.querySelectorAll("button")) button.disabled = !(every || picked);
}

document.addEventListener("click", ({ target, shiftKey }) => {
  if (!target.matches?.('input[name="what"][form="selected"]')) return;
  const all = boxes();
  const [from, to] = [all.indexOf(last), all.indexOf(target)].sort((a, b) => a - b);
  if (shiftKey && from >= 0) for (const box of all.slice(from, to)) box.checked = target.checked;
  last = target;
});

document.addEventListener("change", ({ target }) => {
  if (target.id === "shown") for (const box of boxes()) box.checked = target.checked;
  count();
});
window.addEventListener("pageshow", count);
document.addEventListener("renewed", count);
