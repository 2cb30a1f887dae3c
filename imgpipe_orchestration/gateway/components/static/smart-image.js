// <smart-image media-id="789" size="thumbnail" alt="Profile" background-option="removed"
//              preferred-formats="avif,webp,jpeg,png" show-ai-data></smart-image>
//
// A picture in the best format and resolution for the screen, lazily loaded into a box that keeps its place from the
// first moment: the blurred placeholder comes first, and an image that is still being processed appears
// by itself as soon as it is there.
//
// Further attributes: width, height (the box, in pixels), sizes (as of <img>), fit (contain, cover), loading (lazy,
// eager), base (the gateway, if the script does not come from it), signature (of a signed URL,
// for a private image), info (what /api/images/{id}/info answers, to save asking). Events: ready, failed.
//
// Link components.css in the page's head, and nothing moves while this script is on its way (with width and height in
// Firefox and Safari only if an <svg width="…" height="…" viewBox="0 0 width height"> is within the element). An <img> within <noscript> within
// the element takes its place where scripts are off. --smart-image-ground is what transparent pictures lie on.

import "./ai-analysis-display.js";

const TYPES = { avif: "image/avif", webp: "image/webp", jpeg: "image/jpeg", png: "image/png" };
const BEST_FIRST = ["avif", "webp", "jpeg", "png"];
const FALLBACKS = { thumbnail: "small", small: "grid", grid: "detail" };
// The box that is kept free until the picture's own is known, in pixels; and the sizes that share one shape.
const BOXES = { thumbnail: [300, 300], small: [480, 360], grid: [500, 500], detail: [1200, 900], header: [1600, 534],
  zoom: [2400, 1800] };
const CROPS = ["thumbnail", "grid", "header"]; // each has one shape, whatever the picture's is
const FREE = ["small", "detail", "zoom"];
const ORIGIN = new URL(import.meta.url).origin;
const PATIENCE = [1, 2, 3, 5, 8, 13, 20]; // seconds between two looks at an image that is being processed

// Paints a data URL. Not as an <img>, for which the page's Content-Security-Policy would have to allow data:.
async function paint(canvas, url) {
  const bytes = Uint8Array.from(atob(url.slice(url.indexOf(",") + 1)), (letter) => letter.charCodeAt(0));
  const picture = await createImageBitmap(new Blob([bytes], { type: "image/webp" }));
  [canvas.width, canvas.height] = [picture.width, picture.height];
  canvas.getContext("2d").drawImage(picture, 0, 0);
}

const STYLE = `
  :host { display: inline-block; vertical-align: bottom; max-width: 100%; height: fit-content; font: inherit; }
  :host([hidden]) { display: none; }
  .box { position: relative; overflow: hidden; width: 100%; height: 100%; background: rgb(128 128 128 / 12%); box-sizing: border-box; }
  .box.there { background: none; }
  .box.there.clear { background: var(--smart-image-ground, none); forced-color-adjust: none; }
  .box::before { content: ""; display: block; height: 0; } /* its width is what the box contributes to a flex row */
  canvas, img { position: absolute; inset: 0; margin: auto; width: 100%; height: 100%; object-fit: contain; }
  :host([fit="cover"]) :is(canvas, img) { object-fit: cover; }
  img { opacity: 0; }
  .there img { opacity: 1; }
  :is(.there, .failed) canvas { visibility: hidden; }
  .room { position: absolute; inset: 0; container-type: size; pointer-events: none; }
  .words { position: absolute; inset: auto 0 0; margin: 0; padding: 0.4em 0.7em; font-size: 0.85em; line-height: 1.35;
    color: #fff; background: rgb(0 0 0 / 72%); text-align: center; }
  .words:empty { display: none; }
  .failed ~ ai-analysis-display { visibility: hidden; }
  .failed .words { inset: 0; display: grid; place-content: center; background: none; color: inherit; }
  @container (max-width: 9em) or (max-height: 5em) { .words { clip-path: inset(50%); } } /* a screen reader has them */
  @media (prefers-reduced-motion: no-preference) { img { transition: opacity 0.2s; } }
`;

const Base = globalThis.HTMLElement ?? class {}; // a server that renders pages may import this file

export class SmartImage extends Base {
  static observedAttributes = ["media-id", "size", "alt", "background-option", "preferred-formats", "sizes", "width",
    "height", "base", "info", "show-ai-data", "signature", "loading"];

  #box;
  #canvas;
  #words;
  #sheet;
  #looks = 0;
  #timer;
  #asked;
  #drawn = false;
  #placed = false; // isConnected is true already while a parsed element gets its attributes, one by one

  constructor() {
    super();
    const root = this.attachShadow({ mode: "open" });
    const sheet = new CSSStyleSheet(); // not a <style>: a page's content security policy may forbid those
    sheet.replaceSync(STYLE);
    this.#sheet = new CSSStyleSheet();
    root.adoptedStyleSheets = [sheet, this.#sheet];
    this.#box = document.createElement("div");
    this.#box.className = "box";
    this.#canvas = document.createElement("canvas");
    this.#canvas.width = this.#canvas.height = 1;
    this.#canvas.setAttribute("aria-hidden", "true");
    this.#words = document.createElement("p");
    this.#words.className = "words";
    this.#words.setAttribute("role", "status");
    const room = document.createElement("div");
    room.className = "room";
    room.append(this.#words);
    this.#box.append(this.#canvas, room);
    root.append(this.#box);
  }

  connectedCallback() {
    this.#placed = true;
    this.#shape();
    this.#start();
  }

  disconnectedCallback() {
    this.#placed = false;
    clearTimeout(this.#timer);
    this.#asked?.abort();
  }

  attributeChangedCallback(name, before, after) {
    if (!this.#placed || before === after) return;
    this.#shape();
    if (name === "show-ai-data") this.#analysis();
    else if (["alt", "loading", "sizes"].includes(name) && this.#drawn) this.#draw(this.#drawn);
    else if (!["width", "height"].includes(name)) this.#start();
  }

  get #id() {
    return this.getAttribute("media-id") ?? "";
  }

  get #size() {
    return this.getAttribute("size") ?? "detail";
  }

  get #base() {
    return (this.getAttribute("base") ?? ORIGIN).replace(/\/$/, "");
  }

  #signed(joint) {
    const signature = this.getAttribute("signature");
    return signature ? `${joint}signature=${encodeURIComponent(signature)}` : "";
  }

  get #formats() {
    const given = this.getAttribute("preferred-formats") ?? "";
    const named = given.match(/[a-z]+/g)?.filter((name) => name in TYPES);
    return named?.length ? named : BEST_FIRST;
  }

  // The box stands before anything is known, and it does not change when more is. It is that of an <img> with this width
  // and height: no context stretches it, and only a narrower parent makes it smaller. A page's own CSS may.
  #shape() {
    const given = ["width", "height"].map((name) => Number(this.getAttribute(name)));
    const usual = BOXES[this.#size] ?? BOXES.detail;
    const natural = CROPS.includes(this.#size) ? usual : (this.#known() ?? usual);
    const both = given.every((side) => side > 0);
    const [width, height] = both ? given : natural;
    const wide = given[0] > 0 ? given[0] : given[1] > 0 ? (given[1] * width) / height : width;
    const least = both ? wide : Math.min(wide, 96); // pixels; more would keep a grid's columns from becoming narrow
    this.#sheet.replaceSync(`:host { width: ${wide}px; } .box { aspect-ratio: ${width} / ${height}; }
      .box::before { width: ${least}px; } ${this.#limit()}`);
  }

  // No variant is shown larger than its pixels.
  #limit() {
    const own = this.#drawn && this.#of(this.#drawn);
    return own ? `img { max-width: ${own.width}px; max-height: ${own.height}px; }` : "";
  }

  #known() {
    const info = this.#given();
    const size = info && this.#of(info);
    return size ? [size.width, size.height] : null;
  }

  #given() {
    try {
      return JSON.parse(this.getAttribute("info") ?? "null");
    } catch {
      return null;
    }
  }

  #of(info) {
    for (let name = this.#size; name; name = FALLBACKS[name]) if (info.sizes[name]) return info.sizes[name];
    return null;
  }

  #start() {
    clearTimeout(this.#timer);
    this.#asked?.abort();
    this.#looks = 0;
    this.#drawn = false;
    this.#box.classList.remove("there", "failed");
    this.#box.querySelector("picture")?.remove();
    this.#words.textContent = "";
    this.#analysis();
    if (!this.#id) return;
    const info = this.#given();
    if (info) this.#take(info);
    else this.#ask();
  }

  async #ask() {
    this.#asked = new AbortController();
    try {
      const address = `${this.#base}/api/images/${encodeURIComponent(this.#id)}/info${this.#signed("?")}`;
      const answer = await fetch(address, { signal: this.#asked.signal });
      if (answer.ok) this.#take(await answer.json());
      else if (answer.status === 403 && (await answer.json()).code === "held") this.#later("This image is not shown yet.");
      else if (answer.status >= 500 || answer.status === 429) this.#later("This image cannot be reached at the moment.");
      else this.#failed(answer.status === 403 ? "This image may not be shown here." : "This image is not there.");
    } catch (error) {
      if (error.name !== "AbortError") this.#later("This image cannot be reached at the moment.");
    }
  }

  #later(words) {
    this.#words.textContent = words;
    const seconds = PATIENCE[Math.min(this.#looks++, PATIENCE.length - 1)];
    this.#timer = setTimeout(() => this.#ask(), seconds * 1000);
  }

  #failed(words) {
    this.#box.classList.add("failed");
    const alt = this.getAttribute("alt");
    this.#words.textContent = alt ? `${alt}: ${words}` : words;
    this.dispatchEvent(new CustomEvent("failed", { detail: words }));
  }

  #take(info) {
    if (info.placeholder) paint(this.#canvas, info.placeholder);
    if (info.status === "failed") return this.#failed("This image could not be processed.");
    if (!this.#of(info)) return this.#later("This image is being processed.");
    this.#draw(info);
  }

  #draw(info) {
    clearTimeout(this.#timer);
    this.#drawn = info;
    this.#shape();
    const removed = this.getAttribute("background-option") === "removed" && info.background_removed;
    const address = (size, format) =>
      `${this.#base}/serve/${encodeURIComponent(this.#id)}?size=${size}` +
      `${format ? `&format=${format}` : ""}${removed ? "&bg=removed" : ""}${this.#signed("&")}` +
      (info.version ? `&version=${info.version}` : "");
    const own = this.#of(info);
    // Sizes of one shape may replace each other; a square thumbnail is another picture than its original.
    const choices = FREE.includes(this.#size)
      ? FREE.filter((name) => info.sizes[name] && info.sizes[name].width <= own.width).map((name) => [name, info.sizes[name]])
      : [[this.#size, own]];
    const set = (format) => choices.map(([name, size]) => `${address(name, format)} ${size.width}w`).join(", ");
    const sizes = this.getAttribute("sizes") ?? `(max-width: ${own.width}px) 100vw, ${own.width}px`;

    const picture = document.createElement("picture");
    // A picture without its background has formats of its own, which only the server knows.
    for (const format of removed ? [] : this.#formats.filter((name) => own.formats.includes(name))) {
      const source = document.createElement("source");
      Object.assign(source, { type: TYPES[format], srcset: set(format), sizes });
      picture.append(source);
    }
    const image = document.createElement("img");
    image.alt = this.getAttribute("alt") ?? info.alt ?? "";
    image.loading = this.getAttribute("loading") ?? "lazy";
    image.decoding = "async";
    image.width = own.width;
    image.height = own.height;
    image.addEventListener("load", () => {
      if (!picture.isConnected) return; // another one took its place
      this.#box.classList.add("there");
      this.dispatchEvent(new CustomEvent("ready", { detail: info }));
    });
    image.addEventListener("error", () => {
      if (!picture.isConnected) return;
      picture.remove();
      this.#later("This image cannot be reached at the moment.");
    });
    picture.append(image); // before it has an address: WebKit asks for that at once, and for the right one afterwards
    image.sizes = sizes;
    image.srcset = set("");
    image.src = address(this.#size, "");
    this.#box.querySelector("picture")?.remove();
    this.#box.classList.remove("there", "failed");
    this.#box.classList.toggle("clear", removed || own.formats.includes("png")); // which replaces JPEG there
    this.#box.insertBefore(picture, this.#words.parentNode);
    this.#words.textContent = "";
  }

  // Its line stands from the start, like the box: it would move what follows.
  #analysis() {
    this.shadowRoot.querySelector("ai-analysis-display")?.remove();
    const wanted = this.getAttribute("show-ai-data");
    if (wanted === null || wanted === "false") return;
    const display = document.createElement("ai-analysis-display");
    display.setAttribute("media-id", this.#id);
    display.setAttribute("base", this.#base);
    if (this.hasAttribute("signature")) display.setAttribute("signature", this.getAttribute("signature"));
    this.shadowRoot.append(display);
  }
}

globalThis.customElements?.get("smart-image") ?? globalThis.customElements?.define("smart-image", SmartImage);
