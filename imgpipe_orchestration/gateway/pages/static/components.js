// The choices beside the image are its attributes; what to write for them stands below.
const shown = document.getElementById("shown");
const written = document.getElementById("written");

const elsewhere = document.implementation.createHTMLDocument(""); // where the element is only words

function write() {
  const element = elsewhere.createElement("smart-image");
  for (const { name, value } of shown.attributes) {
    if (!["id", "info"].includes(name)) element.setAttribute(name, name === "signature" ? "…" : value); // it is short-lived
  }
  written.textContent = element.outerHTML;
}

for (const choice of document.querySelectorAll("[data-attribute]")) {
  choice.addEventListener("change", () => {
    shown.setAttribute(choice.dataset.attribute, choice.value);
    write();
  });
}
