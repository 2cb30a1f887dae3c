// A page about something that is on its way is loaded anew every few seconds, unless somebody is busy with it.
setInterval(() => {
  const busy = document.hidden || document.activeElement?.closest("form, a");
  if (!busy) window.location.reload();
}, 4000);
