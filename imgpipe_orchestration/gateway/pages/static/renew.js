// What differs between a part of the page and the same part of a newer page takes its place, and whether all of it did is
// answered. The rest stays as it is: what is marked in it, where the focus and a screen reader are, and a part with a
// field that somebody has filled in. Items of a list with `data-key` are told apart by it, so that those that stay are
// not drawn again when one comes or goes.
function renew(before, after) {
  if (before.matches?.("[data-steady]:is(:hover, :focus-within)")) return false; // somebody is about to follow a link in it
  if (before.localName === "details") after.open = before.open;
  if (before.isEqualNode(after) || before.dataset?.own === "") return true; // or a script keeps it
  const [parts, anew] = [[...before.childNodes], [...after.childNodes]];
  const same = before.cloneNode().isEqualNode(after.cloneNode());
  if (same && keyed(before) && keyed(after)) return renewList(before, after);
  if (same && parts.length === anew.length) return parts.map((part, at) => renew(part, anew[at])).every(Boolean);
  if (inUse(before)) return false;
  before.replaceWith(after);
  return true;
}

function keyed(list) {
  return list.children?.length > 0 && [...list.children].every((item) => item.dataset.key);
}

function renewList(list, after) {
  const before = new Map([...list.children].map((item) => [item.dataset.key, item]));
  let done = true;
  const items = [...after.children].map((item) => {
    const old = before.get(item.dataset.key);
    before.delete(item.dataset.key);
    if (old) done = renew(old, item) && done;
    return old?.isConnected ? old : item;
  });
  for (const gone of before.values()) {
    if (inUse(gone)) done = false;
    else gone.remove();
  }
  items.forEach((item, at) => list.children[at] === item || list.insertBefore(item, list.children[at] ?? null));
  return done;
}

function inUse(part) {
  const active = document.activeElement;
  return filledIn(part) || (part !== document.body && active?.matches("input, textarea, select") && part.contains(active));
}

function filledIn(part) {
  const fields = [part, ...(part.querySelectorAll?.("input, textarea") ?? [])];
  return fields.some((one) => "defaultValue" in one && (one.value !== one.defaultValue || one.checked !== one.defaultChecked));
}
