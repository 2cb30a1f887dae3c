// A page about something that is on its way is asked for anew every few seconds, unless somebody is busy with it, and what
// has changed in it takes its place. Where nobody answers, all of it stays, and the next look may find more. A page that
// only says that a store is away gives way to the one that was asked for.
function busy() {
  return document.hidden || document.activeElement?.closest("form, a");
}

async function look() {
  try {
    const answer = busy() ? null : await fetch(location.href, { redirect: "manual" });
    const page = new DOMParser().parseFromString(answer?.ok ? await answer.text() : "", "text/html");
    const main = page.getElementById("main");
    if (answer && answer.status < 500 && !busy()) {
      const shown = document.getElementById("main");
      // Without: the session has ended, here or at a proxy, or what the page is about.
      const other = !main || document.getElementById("error");
      if (other && !filledIn(shown)) return location.reload();
      if (!other && renew(shown, main) && !page.querySelector("script[src*='reload.js']")) return; // all is done
    }
  } catch {
    // Away for the moment.
  }
  setTimeout(look, 4000);
}

setTimeout(look, 4000);
