// Review by keyboard: A approves, R rejects, J and K go on and back, S shows while it is held. A decision is sent while
// the next picture is looked at; one that fails says so and can be made again.
const list = document.querySelector(".review");
const cards = [...list.querySelectorAll("[data-item]")];
let at = 0;

function go(to) {
  at = Math.min(Math.max(to, 0), cards.length - 1);
  for (const card of cards) card.classList.toggle("now", card === cards[at]);
  cards[at]?.focus();
}

async function decide(card, decision) {
  if (card.dataset.sent) return;
  card.dataset.sent = decision;
  const said = card.querySelector(".done");
  const { kind, item } = card.dataset;
  const reason = card.querySelector("[name=reason]").value;
  said.textContent = decision === "approve" ? "Approved." : "Rejected.";
  const next = cards.findIndex((one, index) => index > at && !one.dataset.sent);
  if (next >= 0) go(next);
  try {
    const answer = await fetch("/review/decide", {
      method: "POST",
      headers: { Accept: "application/json", "X-Form-Token": list.dataset.token },
      body: new URLSearchParams({ kind, item, decision, reason, desk: list.dataset.desk }),
    });
    if (!answer.ok) throw new Error((await answer.json()).detail);
    card.dataset.done = "yes";
  } catch (error) {
    delete card.dataset.sent;
    said.textContent = `Not done: ${error.message}`;
    return;
  }
  if (cards.every((one) => one.dataset.done)) location.reload();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input")) return;
  const key = event.key.toLowerCase();
  if (key === "s") list.classList.add("showing");
  if (event.repeat || !cards.length) return;
  if (key === "j") go(at + 1);
  if (key === "k") go(at - 1);
  if (key === "a") decide(cards[at], "approve");
  if (key === "r") decide(cards[at], "reject");
});
document.addEventListener("keyup", (event) => event.key.toLowerCase() === "s" && list.classList.remove("showing"));
window.addEventListener("blur", () => list.classList.remove("showing"));
list.addEventListener("focusin", ({ target }) => {
  const card = cards.indexOf(target.closest("[data-item]"));
  if (card >= 0 && card !== at) go(card);
});
go(0);
