// <rank-curves>: the curves of an analysis, drawn from the data in the page; one line for each kind of module.
import * as formats from "./formats.js";
import "./live-chart.js";

const share = (value) => `${formats.number(100 * value, 1)} %`;
const whole = (value) => formats.number(value, 0);

class RankCurves extends HTMLElement {
  connectedCallback() {
    this.addEventListener("chart-zoom", (event) => event.target.zoom(event.detail));
    // What is swapped in comes to life from the outside in: the charts within are not yet what they will be.
    requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    const found = JSON.parse(this.querySelector("script").textContent);
    for (const chart of this.querySelectorAll("live-chart")) {
      const name = chart.getAttribute("curves");
      const { x, columns } = found[name];
      const lines = Object.keys(columns).map((module, index) => ({ name: module, label: module, colour: `s${index + 1}`, dash: index > 3 }));
      chart.xWord = name === "rank" ? this.dataset.wordsLayer : this.dataset.wordsRank;
      chart.define(lines, { format: name === "rank" ? whole : share, formatX: whole });
      chart.draw(x, columns);
    }
  }
}

customElements.define("rank-curves", RankCurves);
