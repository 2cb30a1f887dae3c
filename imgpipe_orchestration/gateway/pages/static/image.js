// An image that is on its way is looked at again until it has arrived, or is made again, when its page is shown whole, and
// until its last step is done. Who does not see the steps change hears of it.
const head = document.querySelector("[data-image]");
const told = document.getElementById("told");
const before = head.dataset.state;
const remade = "remaking" in head.dataset;
const OFTEN = 1500;
const SELDOM = 30000;
let pause = OFTEN;

async function look() {
  try {
    pause = Math.min(2 * pause, SELDOM);
    const answer = await fetch(`/media/${head.dataset.image}/state`, { signal: AbortSignal.timeout(SELDOM) });
    if (answer.status === 401) return window.location.reload(); // to sign in
    if (answer.status === 404) return window.location.reload(); // it was deleted, which its page says
    if (answer.ok) {
      pause = OFTEN;
      const { status, steps, remaking } = await answer.json();
      const arrived = status !== before && (status === "completed" || status === "failed");
      if (arrived || (remade && !remaking)) return window.location.reload();
      head.querySelector("h1 .tag").textContent = status;
      const news = [];
      for (const [step, state] of Object.entries(steps)) {
        const item = document.querySelector(`[data-step="${step}"]`);
        if (!item || item.className === state) continue; // none: the uploads' database was away when the page was made
        item.className = state;
        item.querySelector("span span").textContent = state;
        const link = item.querySelector("a");
        if (state === "completed") link?.replaceWith(link.textContent); // it leads to failures
        news.push(item.textContent);
      }
      if (news.length) told.textContent = news.join(", ");
    }
  } catch {
    // Away for the moment: the next look may find it.
  }
  again();
}

function again() {
  const ended = before === "failed" || (before === "completed" && !document.querySelector(".steps .pending"));
  if (!ended || remade) setTimeout(look, pause);
}

again();
