// <block-scores>: the heat map of a block-sparse run moves through time; a cell that is chosen shows its blocks on their grid.
import * as formats from "./formats.js";

const SHADES = 8;
const PIXELS = 6;

class BlockScores extends HTMLElement {
  #events = null;
  #chosen = null;

  connectedCallback() {
    this.slider = this.querySelector("#block-step");
    this.slider.addEventListener("input", () => this.#show());
    this.addEventListener("click", (event) => {
      const cell = event.target.closest("td:has(button)");
      if (cell) this.#choose(cell);
    });
  }

  async #load() {
    if (this.#events?.length > Number(this.slider.max)) return; // the server may have more by now
    const answer = await fetch(this.dataset.source, { headers: { Accept: "application/json" } });
    if (answer.ok) this.#events = (await answer.json()).events;
  }

  async #show() {
    await this.#load();
    const event = this.#events?.[Number(this.slider.value)];
    if (!event) return;
    this.querySelector("#block-step-value").textContent = String(event.step);
    const means = event.modules.map((each) => each.mean);
    const low = Math.min(...means);
    const width = Math.max(...means) - low || 1;
    for (const each of event.modules) {
      const cell = this.#cellOf(each);
      if (!cell) continue;
      const shade = Math.min(SHADES - 1, Math.floor((SHADES * (each.mean - low)) / width));
      cell.className = `num heat-${shade}`;
      cell.querySelector("[data-mean]").textContent = formats.number(each.mean, 3);
      cell.querySelector("[data-replaced]").textContent = `${formats.number(100 * each.replaced, 1)} %`;
    }
    if (this.#chosen) this.#draw();
  }

  #cellOf(each) {
    const columns = [...this.querySelectorAll("thead th")].slice(1).map((head) => head.textContent);
    const row = this.querySelector(`tr[data-layer="${each.layer ?? ""}"]`);
    return row?.querySelectorAll("td")[columns.indexOf(each.module)];
  }

  async #choose(cell) {
    const column = [...cell.parentElement.querySelectorAll("td")].indexOf(cell) + 1;
    const module = this.querySelectorAll("thead th")[column].textContent;
    this.#chosen = { layer: cell.parentElement.dataset.layer, module };
    await this.#load();
    this.#draw();
  }

  #draw() {
    const event = this.#events?.[Number(this.slider.value)];
    const each = event?.modules.find(({ layer, module }) => String(layer ?? "") === this.#chosen.layer && module === this.#chosen.module);
    const figure = this.querySelector("figure");
    figure.hidden = !each;
    if (!each) return;
    const places = each.positions.map((position) => `${Math.floor(position / each.m)}/${position % each.m}`);
    figure.querySelector("figcaption").textContent = `${this.#chosen.layer} ${each.module}: ${each.n} × ${each.m}; ${places.slice(0, 12).join(", ")}`;
    const canvas = figure.querySelector("canvas");
    canvas.width = each.m * PIXELS;
    canvas.height = each.n * PIXELS;
    const context = canvas.getContext("2d");
    context.fillStyle = getComputedStyle(canvas).color;
    const most = Math.max(...each.scores);
    each.positions.forEach((position, slot) => {
      context.globalAlpha = 0.3 + (0.7 * each.scores[slot]) / (most || 1);
      context.fillRect((position % each.m) * PIXELS, Math.floor(position / each.m) * PIXELS, PIXELS - 1, PIXELS - 1);
    });
    context.globalAlpha = 1;
  }
}

customElements.define("block-scores", BlockScores);
