// A page about something that is on its way is loaded anew every few seconds, unless somebody is busy with it. It is
// asked for first: where nobody answers, what is shown stays, and the next look may find it.
function busy() {
  const typed = [...document.querySelectorAll("input, textarea")].some((field) => field.value !== field.defaultValue);
  return typed || document.hidden || document.activeElement?.closest("form, a");
}

async function look() {
  try {
    const answer = busy() ? null : await fetch(location.href, { redirect: "manual" });
    if (answer && answer.status < 500 && !busy()) return location.reload();
  } catch {
    // Away for the moment.
  }
  setTimeout(look, 4000);
}

setTimeout(look, 4000);
