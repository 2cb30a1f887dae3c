// Several files, two at a time; each is followed until it is ready.
const form = document.getElementById("upload");
const drop = document.getElementById("drop");
const picker = document.getElementById("files");
const list = document.getElementById("sent");
const told = document.getElementById("told");
const limit = Number(form.dataset.limit);
const waiting = [];
const followed = new Map(); // upload id -> its row
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
  list.prepend(item);
  return item;
}

function say(item, words, kind = "") {
  const state = item.querySelector(".state");
  state.textContent = words;
  state.className = `state ${kind}`;
  if (kind) {
    item.querySelector("progress").remove();
    told.textContent = `${item.querySelector(".name").textContent}: ${words}`;
  }
}

function take(files) {
  if (!form.reportValidity()) return; // every file is somebody's
  // As they are now: somebody may fill them in anew while files wait.
  const query = new URLSearchParams({ field: form.querySelector("#field").value, user: form.querySelector("#user").value });
  for (const file of files) {
    const item = row(file);
    if (file.size > limit) say(item, `Larger than ${sized(limit)}, so it was not sent. Save it smaller and choose it again.`, "bad");
    else if (!file.size) say(item, "The file is empty, so it was not sent. Save it anew and choose it again.", "bad");
    else {
      say(item, "Waits to be sent");
      waiting.push([file, item, query]);
    }
  }
  next();
}

function next() {
  while (sending < 2 && waiting.length) send(...waiting.shift());
}

function send(file, item, query) {
  sending++;
  const bar = item.querySelector("progress");
  const request = new XMLHttpRequest(); // fetch tells nothing of how far an upload is
  request.open("POST", `/upload?${query}`);
  request.setRequestHeader("X-Form-Token", form.dataset.token);
  request.setRequestHeader("Accept", "application/json");
  request.responseType = "json";
  request.upload.onprogress = (event) => {
    bar.value = event.loaded / event.total / 2;
    say(item, `Sending, ${Math.round((100 * event.loaded) / event.total)} %`);
  };
  request.onload = () => {
    if (request.status === 202) {
      say(item, "Accepted; waits to be processed");
      followed.set(String(request.response.id), item);
      follow();
    } else say(item, request.response?.detail ?? "It was not taken.", "bad");
  };
  request.onerror = () => say(item, "The connection broke before an answer came. Look among the media whether it arrived; if not, choose it again.", "bad");
  request.onloadend = () => {
    sending--;
    next();
  };
  const body = new FormData();
  body.append("file", file);
  request.send(body);
}

let timer;
function follow() {
  clearTimeout(timer);
  if (followed.size) timer = setTimeout(look, 700);
}

async function look() {
  try {
    const answer = await fetch(`/upload/state?ids=${[...followed.keys()].slice(0, 200).join(",")}`);
    if (answer.ok) for (const [id, upload] of Object.entries(await answer.json())) show(id, upload);
  } catch {
    told.textContent = "The connection is gone; trying again.";
  }
  follow();
}

function show(id, { status, media_id: media, error }) {
  const item = followed.get(id);
  if (status === "waiting") return;
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
    item.querySelector(".thumb").append(image);
    say(item, "Ready", "good");
  } else if (status === "failed") say(item, error ?? "It could not be processed.", "bad");
  else {
    item.querySelector("progress").value = 0.75;
    return say(item, "Being processed");
  }
  followed.delete(id);
}

picker.addEventListener("change", () => {
  take(picker.files);
  picker.value = "";
});
for (const [name, over] of [["dragenter", true], ["dragover", true], ["dragleave", false], ["drop", false]]) {
  drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", over);
    if (name === "drop") take(event.dataTransfer.files);
  });
}
form.addEventListener("submit", (event) => event.preventDefault());
