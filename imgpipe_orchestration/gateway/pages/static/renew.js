// What differs between a part of the page and the same part of a newer page takes its place. The rest stays as it is: what
// is marked in it, and where the focus and a screen reader are.
function renew(before, after) {
  if (before.isEqualNode(after)) return;
  const [parts, anew] = [[...before.childNodes], [...after.childNodes]];
  const alike = before.cloneNode().isEqualNode(after.cloneNode()) && parts.length === anew.length;
  if (alike) parts.forEach((part, at) => renew(part, anew[at]));
  else before.replaceWith(after);
}
