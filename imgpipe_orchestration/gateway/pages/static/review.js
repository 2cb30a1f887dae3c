// Review by keyboard: A approves, R rejects, J and K go on and back, S shows while it is held, W writes a reason. A
// decision is sent while the next picture is looked at; one that fails says so and can be made again.
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
  const said = card.querySelector(".done");
  const picture = card.querySelector(":scope > figure img");
  if (picture && !picture.complete) {
    said.textContent = "Wait for the picture.";
    return;
  }
  card.dataset.sent = decision;
  const { kind, item } = card.dataset;
  const reason = card.querySelector("[name=reason]").value;
  said.textContent = decision === "approve" ? "Approved." : "Rejected.";
  const left = cards.filter((one) => !one.dataset.sent);
  if (left.length) go(cards.indexOf(left.find((one) => cards.indexOf(one) > at) ?? left[0]));
  try {
    const answer = await fetch("/review/decide", {
      method: "POST",
      headers: { Accept: "application/json", "X-Form-Token": list.dataset.token },
      body: new URLSearchParams({ kind, item, decision, reason }),
    });
    if (!answer.ok) {
      const words = (await answer.json()).detail;
      if (![404, 409, 410].includes(answer.status)) throw new Error(words);
      said.textContent = words; // there is nothing left to decide
    }
    card.dataset.done = "yes";
  } catch (error) {
    delete card.dataset.sent;
    said.textContent = `Not done: ${error.message}`;
    return;
  }
  if (cards.every((one) => one.dataset.done)) location.reload();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.toLowerCase();
  if (event.target.matches("input")) {
    if (key !== "enter" && key !== "escape") return;
    event.preventDefault();
    cards[at].focus();
    return;
  }
  if (key === "s") list.classList.add("showing");
  if (event.repeat || !cards.length) return;
  if (key === "j") go(at + 1);
  if (key === "k") go(at - 1);
  if (key === "a") decide(cards[at], "approve");
  if (key === "r") decide(cards[at], "reject");
  if (key === "w") {
    event.preventDefault();
    cards[at].querySelector("[name=reason]").focus();
  }
});
document.addEventListener("keyup", (event) => event.key.toLowerCase() === "s" && list.classList.remove("showing"));
window.addEventListener("blur", () => list.classList.remove("showing"));
list.addEventListener("focusin", ({ target }) => {
  const card = cards.indexOf(target.closest("[data-item]"));
  if (card >= 0 && card !== at) go(card);
});
go(0);
