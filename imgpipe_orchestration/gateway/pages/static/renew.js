// What differs between a part of the page and the same part of a newer page takes its place, and whether all of it did is
// answered. The rest stays as it is: what is marked in it, where the focus and a screen reader are, and a part with a
// field that somebody has filled in.
function renew(before, after) {
  if (before.isEqualNode(after)) return true;
  const [parts, anew] = [[...before.childNodes], [...after.childNodes]];
  const alike = before.cloneNode().isEqualNode(after.cloneNode()) && parts.length === anew.length;
  if (alike) return parts.map((part, at) => renew(part, anew[at])).every(Boolean);
  if (filledIn(before)) return false;
  before.replaceWith(after);
  return true;
}

function filledIn(part) {
  const fields = [part, ...(part.querySelectorAll?.("input, textarea") ?? [])];
  return fields.some((field) => "defaultValue" in field && field.value !== field.defaultValue);
}
