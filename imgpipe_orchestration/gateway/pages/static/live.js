// The overview follows the figures.
const live = document.getElementById("live");
const state = live.querySelector("[data-live-state]");
const clock = live.querySelector("[data-live-at]");
const figures = document.getElementById("figures");
let newest;

// Links that come and go stay while somebody is about to follow one of them.
function show() {
  const { children } = newest.cloneNode(true);
  [...figures.children].forEach((part, at) => part.matches("[data-steady]:is(:hover, :focus-within)") || renew(part, children[at]));
}

function told(words, alive) {
  state.textContent = words;
  live.classList.toggle("on", alive);
}

let events;
let retry;

function follow() {
  leave();
  events = new EventSource("/events");
  events.addEventListener("figures", (event) => {
    const { at, figures: drawn } = JSON.parse(event.data);
    if (drawn) newest = new DOMParser().parseFromString(drawn, "text/html").body;
    show();
    clock.textContent = at;
    told("Live, as of", true);
  });
  events.addEventListener("away", (event) => told(`${JSON.parse(event.data)} Last figures of`, false));
  events.addEventListener("error", () => {
    told("Not connected; figures of", false);
    // A browser tries again by itself where nobody answers, but not after an answer like a proxy's 502.
    if (events.readyState === EventSource.CLOSED) retry = setTimeout(again, 3000);
  });
}

async function again() {
  const page = await fetch(location.href, { redirect: "manual" }).catch(() => null);
  if (page?.status === 401 || page?.type === "opaqueredirect") location.reload(); // to sign in, here or at a proxy
  else turn();
}

function leave() {
  clearTimeout(retry);
  events?.close();
}

// Only while somebody looks: a browser has six connections to a host, for all its tabs together.
function turn() {
  if (document.hidden) leave();
  else follow();
}

document.addEventListener("visibilitychange", turn);
window.addEventListener("pageshow", turn);
window.addEventListener("pagehide", leave);
