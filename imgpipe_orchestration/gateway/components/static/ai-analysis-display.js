// <ai-analysis-display media-id="789" show-style show-colors show-quality show-mood></ai-analysis-display>
//
// What the analysis of an image found, shown when somebody asks for it (or at once, with `open`). Parts that are
// missing are said to be missing. Naming no show-* attribute shows everything; naming some shows those; `="false"`
// hides one. Further attributes: signature (of a signed URL, for a private image), base (the gateway).

const ORIGIN = new URL(import.meta.url).origin;
const PARTS = ["style", "colors", "quality", "mood"];

const STYLE = `
  :host { display: block; font: inherit; min-height: 2.5em; }
  :host([hidden]) { display: none; }
  summary { cursor: pointer; padding: 0.4em 0; font-size: 0.92em; line-height: 1.45; }
  details > div { font-size: 0.92em; line-height: 1.45; }
  dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 0.3em 1em; margin: 0.2em 0; }
  dd { margin: 0; overflow-wrap: anywhere; }
  ul { display: flex; flex-wrap: wrap; gap: 0.3em 0.8em; margin: 0; padding: 0; list-style: none; }
  svg { width: 1.1em; height: 1.1em; vertical-align: -0.2em; margin-inline-end: 0.35em; }
  p { margin: 0.3em 0; }
`;

const Base = globalThis.HTMLElement ?? class {};

function made(name, words, ...inside) {
  const element = document.createElement(name);
  if (words !== undefined && words !== null) element.textContent = words;
  element.append(...inside);
  return element;
}

function swatch(hex) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 10 10");
  svg.setAttribute("aria-hidden", "true");
  const dot = document.createElementNS("http://www.w3.org/2000/svg", "circle");
  for (const [name, value] of Object.entries({ cx: 5, cy: 5, r: 4.5, fill: hex, stroke: "currentColor", "stroke-width": 0.5 })) {
    dot.setAttribute(name, value);
  }
  svg.append(dot);
  return svg;
}

function percent(share) {
  return share > 0 && share < 0.005 ? "< 1 %" : `${Math.round(share * 100)} %`;
}

export class AIAnalysisDisplay extends Base {
  static observedAttributes = ["media-id", "signature", "base", "open", ...PARTS.map((part) => `show-${part}`)];

  #details;
  #body;
  #asked;
  #answer;
  #placed = false; // as in smart-image.js

  constructor() {
    super();
    const root = this.attachShadow({ mode: "open" });
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(STYLE);
    root.adoptedStyleSheets = [sheet];
    this.#body = made("div");
    this.#body.setAttribute("aria-live", "polite");
    this.#body.tabIndex = -1;
    this.#details = made("details", null, made("summary", "What the analysis found"), this.#body);
    this.#details.addEventListener("toggle", () => this.#details.open && !this.#answer?.complete && this.#ask());
    root.append(this.#details);
  }

  connectedCallback() {
    this.#placed = true;
    if (!this.#details.open) this.#details.open = this.#isOpen;
    else if (!this.#answer?.complete) this.#ask(); // it was moved while it waited for an answer
  }

  disconnectedCallback() {
    this.#placed = false;
    this.#asked?.abort();
  }

  attributeChangedCallback(name, before, after) {
    if (!this.#placed || before === after) return;
    if (name === "open") this.#details.open = this.#isOpen;
    else if (name.startsWith("show-")) this.#answer && this.#show();
    else {
      this.#answer = undefined;
      if (this.#details.open) this.#ask();
    }
  }

  get #isOpen() {
    return (this.getAttribute("open") ?? "false") !== "false";
  }

  #wants(part) {
    const given = this.getAttribute(`show-${part}`);
    if (given !== null) return given !== "false";
    return !PARTS.some((other) => this.hasAttribute(`show-${other}`) && this.getAttribute(`show-${other}`) !== "false");
  }

  async #ask() {
    const id = this.getAttribute("media-id");
    if (!id) return;
    this.#asked?.abort();
    this.#asked = new AbortController();
    this.#body.replaceChildren(made("p", "Loading…"));
    const base = (this.getAttribute("base") ?? ORIGIN).replace(/\/$/, "");
    const signature = this.getAttribute("signature");
    const query = signature ? `?signature=${encodeURIComponent(signature)}` : "";
    try {
      const answer = await fetch(`${base}/api/images/${encodeURIComponent(id)}/analysis${query}`, {
        signal: this.#asked.signal,
      });
      if (answer.ok) {
        this.#answer = await answer.json();
        return this.#show();
      }
      const words = { 403: "The analysis of this image is not public.", 404: "This image has not been analysed yet." };
      this.#again(words[answer.status] ?? "The analysis cannot be reached at the moment.");
    } catch (error) {
      if (error.name !== "AbortError") this.#again("The analysis cannot be reached at the moment.");
    }
  }

  #again(words) {
    const button = made("button", "Try again");
    button.type = "button";
    button.addEventListener("click", () => {
      this.#body.focus(); // the button goes
      this.#ask();
    });
    this.#body.replaceChildren(made("p", words), button);
  }

  #show() {
    const { analysis, complete, standins } = this.#answer;
    const facts = made("dl");
    const add = (name, ...inside) => facts.append(made("dt", name), made("dd", null, ...inside));
    const said = (words) => made("bdi", words); // in whatever script
    const list = (items) => made("ul", null, ...items);
    if (this.#wants("style")) {
      if (analysis.style) add("Style", said(analysis.style));
      if (analysis.medium) add("Medium", said(analysis.medium));
    }
    if (this.#wants("mood") && analysis.mood_keywords?.length) add("Mood", said(analysis.mood_keywords.join(", ")));
    if (this.#wants("quality") && analysis.quality_score !== undefined) add("Quality", `${analysis.quality_score} of 100`);
    if (this.#wants("colors")) {
      const colours = analysis.brand_colors?.length ? analysis.brand_colors : analysis.dominant_colors;
      const named = (colours ?? []).map((colour) => (typeof colour === "string" ? { hex: colour } : colour));
      const items = named.map(({ hex, share }) =>
        made("li", null, swatch(hex), hex + (share === undefined ? "" : ` ${percent(share)}`)));
      if (items.length) add(analysis.brand_colors?.length ? "Brand colours" : "Colours", list(items));
    }
    const nothing = facts.childElementCount ? [] : [made("p", "Nothing is known about this image.")];
    const partial = complete ? [] : [made("p", "Part of the analysis is missing; it is tried again.")];
    const measured = this.#wants("colors") ? ", except for the colours" : "";
    const madeUp = standins?.length ? [made("p", `A stand-in made this up${measured}.`)] : [];
    this.#body.replaceChildren(...madeUp, ...(facts.childElementCount ? [facts] : []), ...nothing, ...partial);
  }
}

globalThis.customElements?.get("ai-analysis-display") ??
  globalThis.customElements?.define("ai-analysis-display", AIAnalysisDisplay);
