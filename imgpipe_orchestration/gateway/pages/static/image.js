// An image that is on its way is looked at again until it has arrived; then its page is shown whole.
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
        item.className = state;
        item.querySelector("span span").textContent = state;
      }
    }
  } catch {
    // Away for the moment: the next look may find it.
  }
  setTimeout(look, 1500);
}

if (before === "downloading" || before === "processing") setTimeout(look, 1500);
