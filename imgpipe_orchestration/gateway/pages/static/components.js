// The choices beside the image are its attributes; what to write for them stands below.
const shown = document.getElementById("shown");
const written = document.getElementById("written");

function write() {
  const attributes = [...shown.attributes].filter(({ name }) => !["id", "info"].includes(name)).map(({ name, value }) => `${name}="${value}"`);
  written.textContent = `<smart-image ${attributes.join(" ")}></smart-image>`;
}

for (const choice of document.querySelectorAll("[data-attribute]")) {
  choice.addEventListener("change", () => {
    shown.setAttribute(choice.dataset.attribute, choice.value);
    write();
  });
}
