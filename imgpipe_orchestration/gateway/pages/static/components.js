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

function apply(choice) {
  shown.setAttribute(choice.dataset.attribute, choice.value);
  write();
}

for (const choice of document.querySelectorAll("[data-attribute]")) {
  const first = [...choice.options].find((option) => option.defaultSelected) ?? choice.options[0];
  if (choice.value !== first.value) apply(choice); // chosen before this ran, or kept by the browser
  choice.addEventListener("change", () => apply(choice));
}
