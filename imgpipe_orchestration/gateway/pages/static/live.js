// The overview follows the figures.
const live = document.getElementById("live");
const state = live.querySelector("[data-live-state]");
const clock = live.querySelector("[data-live-at]");
const figures = document.getElementById("figures");
const SILENCE = 30_000; // a gateway that hangs and a network that is gone say nothing
let newest;

// Links that come and go stay while somebody is about to follow one of them.
function show() {
  const anew = [...newest.cloneNode(true).children];
  [...figures.children].forEach((part, at) => part.matches("[data-steady]:is(:hover, :focus-within)") || renew(part, anew[at]));
}

let events;
let retry;
let silence;

function told(words, alive) {
  state.textContent = words;
  live.classList.toggle("on", alive);
  live.classList.toggle("away", !alive);
  clearTimeout(silence);
  silence = setTimeout(lost, SILENCE);
}

function lost() {
  leave();
  told("Not connected; figures of", false);
  retry = setTimeout(again, 3000);
}

function follow() {
  leave();
  silence = setTimeout(lost, SILENCE);
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
    // A browser tries again by itself where nobody answers, but not after an answer like a proxy's 502.
    if (events.readyState === EventSource.CLOSED) lost();
    else told("Not connected; figures of", false);
  });
}

async function again() {
  const page = await fetch(location.href, { redirect: "manual", signal: AbortSignal.timeout(10_000) }).catch(() => null);
  if (page?.status === 401 || page?.type === "opaqueredirect") location.reload(); // to sign in, here or at a proxy
  else turn();
}

function leave() {
  clearTimeout(retry);
  clearTimeout(silence);
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
