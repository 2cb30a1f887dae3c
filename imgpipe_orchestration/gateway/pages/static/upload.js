// Several files, two at a time; each is followed until it is ready.
const form = document.getElementById("upload");
const drop = document.getElementById("drop");
const picker = document.getElementById("files");
const list = document.getElementById("sent");
const told = document.getElementById("told");
const tally = document.getElementById("tally");
const limit = Number(form.dataset.limit);
const most = Number(form.dataset.most); // whose states are asked for at once
const AWAY = "The gateway does not answer; what waits is sent once it does.";
const ENDED = "Your session has ended. Sign in again in another tab, and what waits is sent.";
const MOST_SECONDS = 30; // between two tries
const SILENCE_SECONDS = 60; // after which a connection on which nothing moves is given up: nobody says that it is gone
const PHOTOGRAPH = /\.(jpe?g|jfif|png|webp|avif|gif|tiff?|bmp|hei[cf]|jxl|svg)$/i; // what is taken of a folder
const waiting = [];
const followed = new Map(); // upload id -> its row
const news = [];
let telling;
let away = "";
let sending = 0;

function sized(bytes) {
  if (bytes < 1024) return bytes === 1 ? "1 byte" : `${bytes} bytes`;
  return bytes < 1048576 ? `${Math.round(bytes / 1024)} KB` : `${Number((bytes / 1048576).toFixed(1))} MB`;
}

function row(file) {
  const item = document.getElementById("row").content.firstElementChild.cloneNode(true);
  item.querySelector(".name").textContent = file.name;
  item.querySelector(".size").textContent = sized(file.size);
  item.querySelector("progress").setAttribute("aria-label", `Progress of ${file.name}`);
  const local = new Image(); // at once, from the file itself; a format that the browser does not read leaves the place empty
  local.alt = "";
  local.onload = local.onerror = () => URL.revokeObjectURL(local.src);
  local.addEventListener("error", () => local.remove());
  local.src = URL.createObjectURL(file);
  item.querySelector(".thumb").append(local);
  return item;
}

function say(item, words, kind = "") {
  const state = item.querySelector(".state");
  state.textContent = words;
  state.className = `state ${kind}`;
  if (kind) {
    const bar = item.querySelector("progress");
    if (kind === "good") bar.value = 1;
    else bar.remove();
    tell(`${item.querySelector(".name").textContent}: ${words}`);
  }
}

// What came within a second is told at once: a screen reader reads the last words only. Many files are summed up.
function tell(words) {
  count();
  news.push(words);
  telling ??= setTimeout(() => {
    told.textContent = news.length > 3 ? tally.textContent : news.join(" ");
    news.length = 0;
    telling = undefined;
  }, 1000);
}

function count() {
  const all = list.childElementCount;
  const [ready, failed] = ["good", "bad"].map((kind) => list.querySelectorAll(`.state.${kind}`).length);
  const parts = [[ready, "ready"], [failed, "failed"], [all - ready - failed, "on the way"]].filter(([number]) => number);
  const sum = `${all} ${all === 1 ? "file" : "files"}: ${parts.map((part) => part.join(" ")).join(", ")}.`;
  tally.textContent = `${all ? sum : ""}${away && ` ${away}`}`;
}

function take(files) {
  if (!form.reportValidity()) return; // every file is somebody's
  // As they are now: somebody may fill them in anew while files wait.
  const query = new URLSearchParams({ field: form.querySelector("#field").value, user: form.querySelector("#user").valueAsNumber });
  const items = [...files].map(row);
  list.prepend(...items); // in their order, which is the one they are sent in
  for (const [index, file] of [...files].entries()) {
    const item = items[index];
    if (file.size > limit) say(item, `Larger than ${sized(limit)}, so it was not sent. Save it smaller and choose it again.`, "bad");
    else if (!file.size) say(item, "The file is empty, so it was not sent. Save it again, then choose it.", "bad");
    else {
      say(item, "Waits to be sent");
      waiting.push([file, item, query]);
    }
  }
  count();
  tell(tally.textContent); // the choice was heard
  next();
}

function next() {
  while (sending < 2 && waiting.length) send(...waiting.shift());
}

async function send(file, item, query) {
  sending++;
  try {
    await file.slice(0, 1).arrayBuffer();
  } catch {
    say(item, "It cannot be read, so it was not sent. It may have been moved or changed; choose it again.", "bad");
    sending--;
    return next();
  }
  const bar = item.querySelector("progress");
  const { token } = form.dataset;
  const request = new XMLHttpRequest(); // fetch tells nothing of how far an upload is
  request.open("POST", `/upload?${query}`);
  request.setRequestHeader("X-Form-Token", token);
  request.setRequestHeader("Accept", "application/json");
  request.responseType = "json";
  let silence;
  const hope = () => {
    clearTimeout(silence);
    silence = setTimeout(() => request.abort(), 1000 * SILENCE_SECONDS);
  };
  request.upload.onprogress = (event) => {
    hope();
    bar.value = event.loaded / event.total / 2;
    say(item, `Sending, ${Math.round((100 * event.loaded) / event.total)} %`);
  };
  request.onloadend = async () => {
    clearTimeout(silence);
    const { status, response } = request;
    // Another login, or another start of the gateway, since this page; a proxy's page to sign in comes with 200.
    const outdated = [200, 401, 403].includes(status);
    // A store is away, or too many came at once.
    const delayed = [429, 503].includes(status);
    if (status === 202) {
      say(item, "Accepted; waits to be processed");
      followed.set(String(response.id), item);
      follow();
    } else if (!status) say(item, "The connection broke before an answer came. Look under Media; if it is not there, choose it again.", "bad");
    else if (outdated) say(item, "Waits to be sent");
    // Only why: what it says next is to send it again.
    else if (delayed) say(item, `Not taken yet; it is sent again. ${response?.detail?.split(/(?<=\.) /)[0] ?? ""}`);
    else say(item, response?.detail ?? "It was not taken.", "bad");
    // Who cannot take this file could not take the next ones either.
    const waited = (!status || outdated || status > 501) && (await renew());
    if (delayed) {
      await pause(Math.min(Number(request.getResponseHeader("Retry-After")) || 2, MOST_SECONDS));
      waiting.unshift([file, item, query]);
    } else if (outdated && (waited || form.dataset.token !== token)) waiting.unshift([file, item, query]);
    else if (outdated) say(item, response?.detail ?? "It was not taken.", "bad");
    sending--;
    next();
  };
  const body = new FormData();
  body.append("file", file);
  request.send(body);
  hope();
}

// Waits until the gateway has this page for us, and takes that one's token; tells whether that took more than asking.
async function renew() {
  const tokenOf = (page) => new DOMParser().parseFromString(page, "text/html").getElementById("upload").dataset.token;
  for (let waited = false; ; waited = true) {
    const token = await get("/upload", tokenOf);
    if (token) {
      form.dataset.token = token;
      return waited;
    }
    await pause(2);
  }
}

function pause(seconds) {
  return new Promise((resume) => setTimeout(resume, 1000 * seconds));
}

// What is read from an answer, or nothing; then the page says why.
async function get(address, read) {
  let found;
  let why = AWAY;
  try {
    const answer = await fetch(address, { signal: AbortSignal.timeout(1000 * SILENCE_SECONDS) });
    const text = await answer.text();
    if (answer.ok || answer.status === 401) why = ENDED; // a proxy may answer with a page of its own, to sign in
    if (answer.ok) {
      found = read(text);
      why = "";
    }
  } catch {
    // Said below.
  }
  if (why !== away) {
    away = why;
    tell(why || "The gateway answers again.");
  }
  return found;
}

let timer;
function follow() {
  clearTimeout(timer);
  if (followed.size) timer = setTimeout(look, 700);
}

async function look() {
  const states = await get(`/upload/state?ids=${[...followed.keys()].slice(0, most).join(",")}`, JSON.parse);
  for (const [id, upload] of Object.entries(states ?? {})) show(id, upload);
  follow();
}

function show(id, { status, media_id: media, error }) {
  const item = followed.get(id);
  if (!item || status === "waiting") return; // a slow answer before this one may have shown it
  if (!item.querySelector("a")) {
    const link = document.createElement("a");
    link.href = `/media/${media}`;
    link.textContent = item.querySelector(".name").textContent;
    item.querySelector(".name").replaceChildren(link);
  }
  if (status === "completed") {
    // No earlier: what the element says of an image that is not there yet has no room in so small a place.
    const image = document.createElement("smart-image");
    for (const [name, value] of Object.entries({ "media-id": media, size: "thumbnail", width: 72, height: 72, fit: "cover" })) {
      image.setAttribute(name, value);
    }
    item.querySelector(".thumb").replaceChildren(image);
    say(item, "Ready", "good");
  } else if (status === "failed") say(item, error ?? "It could not be processed.", "bad");
  else {
    item.querySelector("progress").value = 0.75;
    return say(item, "Being processed");
  }
  followed.delete(id);
}

// What was dropped, with the files of folders and of the folders in them.
async function takeDropped({ items, files }) {
  const entries = [...items].map((item) => item.webkitGetAsEntry?.()); // before anything is waited for, or they are gone
  if (!entries.some((entry) => entry?.isDirectory)) return take(files);
  const found = await Promise.all(entries.map(async (entry) => {
    const some = await filesOf(entry);
    return entry?.isDirectory ? some.filter((file) => PHOTOGRAPH.test(file.name)) : some;
  }));
  if (found.flat().length) take(found.flat());
  else tell("There are no photographs in the folder.");
}

async function filesOf(entry) {
  if (!entry) return [];
  if (entry.isFile) return [await new Promise((give, fail) => entry.file(give, fail))];
  const reader = entry.createReader();
  const found = [];
  for (;;) { // a reader gives a hundred at a time
    const some = await new Promise((give, fail) => reader.readEntries(give, fail));
    if (!some.length) return (await Promise.all(found.map(filesOf))).flat();
    found.push(...some);
  }
}

window.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) take(event.clipboardData.files);
});

function choose() {
  if (picker.files.length) take(picker.files);
  picker.value = "";
}
picker.addEventListener("change", choose);
choose(); // files that were chosen before this script ran
// Anywhere: what is dropped beside its place would be opened instead of the page.
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  window.addEventListener(name, (event) => {
    if (!event.dataTransfer.types.includes("Files")) return; // words on their way into a field
    event.preventDefault();
    drop.classList.toggle("over", name !== "drop" && (name !== "dragleave" || event.relatedTarget !== null));
    if (name === "drop") takeDropped(event.dataTransfer);
  });
}
form.addEventListener("submit", (event) => event.preventDefault());
window.addEventListener("beforeunload", (event) => {
  if (sending) event.preventDefault(); // what has not been sent would be lost
});
