// The frame of what crops keep is drawn on the picture; the fields hold it, so it can be typed as well.
const form = document.querySelector(".focus");
const frame = form.querySelector(".frame");
const sides = ["left", "top", "right", "bottom"].map((name) => form.elements[name]);
const CLICK = 3; // percent: who moved less meant a point
const AROUND = 8; // percent on each side of a point
let before, from;

function show() {
  const [left, top, right, bottom] = sides.map((side) => Number(side.value));
  frame.querySelector("path").setAttribute("d", `M0 0H100V100H0ZM${left} ${top}H${right}V${bottom}H${left}Z`);
}

function put(values) {
  sides.forEach((side, at) => (side.value = values[at]));
  show();
}

function at(event) {
  const { left, top, width, height } = frame.getBoundingClientRect();
  return [within((100 * (event.clientX - left)) / width), within((100 * (event.clientY - top)) / height)];
}

function within(percent) {
  return Math.round(10 * Math.min(100, Math.max(0, percent))) / 10;
}

function spanned(to) {
  return [...from.map((one, axis) => Math.min(one, to[axis])), ...from.map((one, axis) => Math.max(one, to[axis]))];
}

frame.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  event.preventDefault(); // or the picture itself is dragged
  frame.setPointerCapture(event.pointerId);
  before = sides.map((side) => side.value);
  from = at(event);
});
frame.addEventListener("pointermove", (event) => from && put(spanned(at(event))));
frame.addEventListener("pointerup", (event) => {
  if (!from) return;
  const [left, top, right, bottom] = spanned(at(event));
  const [x, y] = from;
  const point = right - left < CLICK && bottom - top < CLICK;
  put((point ? [x - AROUND, y - AROUND, x + AROUND, y + AROUND] : [left, top, right, bottom]).map(within));
  from = undefined;
});
frame.addEventListener("pointercancel", () => {
  if (from) put(before);
  from = undefined;
});
for (const side of sides) side.addEventListener("input", show);
show();
