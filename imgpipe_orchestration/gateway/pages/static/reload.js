// A page that shows a state follows it: whenever the overview's figures change, which the gateway tells, and every few
// seconds while something on the page is on its way, it is asked for anew, and what has changed in it takes its place.
// Where nobody answers, all of it stays. A page that only says that a store is away gives way to the one asked for.
const WORKING = 4000; // milliseconds
const QUIET = 30000;
const LEAST = 1000; // between two looks
let timer;
let events;
const LEGIBLE = 5000; // how long a message stays at least
const opened = Date.now();
let last = 0;
let due = Infinity;

function busy() {
  return document.hidden || document.activeElement?.closest("form button, form select, main a:not(#figures a)");
}

// Without what was said of the form before: it is told once.
function place() {
  const url = new URL(location.href);
  for (const name of ["notice", "trouble", "undo"]) url.searchParams.delete(name);
  return url;
}

async function look() {
  last = Date.now();
  due = Infinity;
  try {
    const answer = busy() ? null : await fetch(place(), { redirect: "manual", signal: AbortSignal.timeout(QUIET) });
    const page = new DOMParser().parseFromString(answer?.ok ? await answer.text() : "", "text/html");
    const main = page.getElementById("main");
    if (answer && answer.status < 500 && !busy()) {
      const shown = document.getElementById("main");
      // Without: the session has ended, here or at a proxy, or what the page is about. Or its work has ended, after which
      // it has other parts, with scripts of their own.
      const other = !main || document.getElementById("error") || (isWhole(shown) && !isWhole(main));
      if (other && !filledIn(shown)) return location.reload();
      if (!other) take(shown, main);
    }
  } catch {
    // Away for the moment. The stream may be as dead, and not know it.
    tell(false);
    turn();
  }
  later(document.querySelector("#error, [data-working]") ? WORKING : QUIET);
  if (events?.readyState === EventSource.CLOSED) turn();
}

function isWhole(main) {
  return main.querySelector("[data-working=whole]") !== null;
}

// A message goes when what it tells of has changed: "3 items wait again" is untrue once they are done.
function take(shown, main) {
  const said = document.getElementById("said");
  const before = shown.cloneNode(true);
  const told = main.querySelector("#said");
  if (said && told) told.replaceWith(said.cloneNode(true));
  renew(shown, main);
  document.dispatchEvent(new Event("renewed"));
  if (before.isEqualNode(document.getElementById("main"))) return;
  setTimeout(() => document.querySelector("#said .good")?.remove(), Math.max(0, opened + LEGIBLE - Date.now()));
}

function later(milliseconds) {
  if (Date.now() + milliseconds >= due) return; // it comes sooner anyway
  due = Date.now() + milliseconds;
  clearTimeout(timer);
  timer = setTimeout(look, milliseconds);
}

// Only while somebody looks: a browser has six connections to a host, for all its tabs together.
function turn() {
  events?.close();
  if (document.hidden || document.getElementById("error")) return;
  events = new EventSource("/events");
  events.addEventListener("figures", (event) => {
    tell(true);
    if (JSON.parse(event.data).changed) later(Math.max(0, last + LEAST - Date.now()));
  });
  events.addEventListener("away", () => tell(false));
  events.addEventListener("error", () => {
    tell(false);
    // A browser tries again by itself where nobody answers, but not after an answer: a proxy's 502, or a session's end.
    if (events.readyState === EventSource.CLOSED) later(WORKING);
  });
}

// The overview says that its figures are old.
function tell(current) {
  document.documentElement.toggleAttribute("data-away", !current);
}

document.addEventListener("visibilitychange", turn);
window.addEventListener("pageshow", turn);
window.addEventListener("pagehide", () => events?.close());
later(WORKING);
