// The overview follows the figures: words by their place, bars by their pipeline.
const state = document.querySelector("[data-live-state]");
const frame = document.getElementById("live");
const shown = new Map([...document.querySelectorAll("[data-live]")].map((place) => [place.dataset.live, place]));

function show({ words, charts }) {
  for (const [name, value] of Object.entries(words)) {
    const place = shown.get(name);
    if (!place || place.textContent === value) continue;
    place.textContent = value;
    place.classList.toggle("zero", value === "0");
    if ("alarm" in place.dataset) place.classList.toggle("alarm", value !== "0");
  }
  for (const chart of document.querySelectorAll("[data-chart]")) {
    const height = chart.viewBox.baseVal.height - 2;
    charts[chart.dataset.chart].forEach(([done, failed], hour) => {
      const [good, bad] = chart.querySelectorAll("g")[hour].querySelectorAll("rect:not(.hit)");
      good.setAttribute("height", done);
      good.setAttribute("y", height - done + 1);
      bad.setAttribute("height", failed);
      bad.setAttribute("y", height - done - failed + 1);
    });
  }
}

function told(words, alive) {
  state.textContent = words;
  frame.classList.toggle("on", alive);
}

let events;
let retry;

function follow() {
  leave();
  events = new EventSource("/events");
  events.addEventListener("figures", (event) => {
    const figures = JSON.parse(event.data);
    // A new hour moves every bar and its words: the page is loaded anew rather than told piece by piece.
    if (figures.hour !== Number(frame.dataset.hour)) return window.location.reload();
    show(figures);
    told("Live, as of", true);
  });
  events.addEventListener("away", (event) => told(`${JSON.parse(event.data)} Last figures of`, false));
  events.addEventListener("error", () => {
    told("Not connected; figures of", false);
    // A browser tries again by itself where nobody answers, but not after an answer like a proxy's 502.
    if (events.readyState === EventSource.CLOSED) retry = setTimeout(follow, 3000);
  });
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
