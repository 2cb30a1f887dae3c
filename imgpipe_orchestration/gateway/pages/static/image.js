// An image that is on its way is looked at again until it has arrived, when its page is shown whole, and until its last
// step is done.
const head = document.querySelector("[data-image]");
const before = head.dataset.state;

async function look() {
  try {
    const answer = await fetch(`/media/${head.dataset.image}/state`);
    if (answer.ok) {
      const { status, steps } = await answer.json();
      if (status !== before && (status === "completed" || status === "failed")) return window.location.reload();
      for (const [step, state] of Object.entries(steps)) {
        const item = document.querySelector(`[data-step="${step}"]`);
        if (!item) continue; // the uploads' database was away when the page was made
        item.className = state;
        item.querySelector("span span").textContent = state;
      }
    }
  } catch {
    // Away for the moment: the next look may find it.
  }
  again();
}

function again() {
  const ended = before === "failed" || (before === "completed" && !document.querySelector(".steps .pending"));
  if (!ended) setTimeout(look, 1500);
}

again();
