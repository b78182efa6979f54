// <compare-charts>: the curves of several runs, one chart for each figure. A chart is drawn when it is scrolled to, and its points are fetched
// then, not before. Runs have steps of their own, so that their points are joined on one axis.
import uPlot from "../vendor/uplot-1.6.32/uPlot.esm.js";
import { axisBytes, bytes, duration, number, rate } from "./formats.js";
import "./live-chart.js";

/** Pixels of line and gap by the number of a pattern; 0 is unbroken. */
const DASHES = [undefined, [7, 4], [2, 3], [9, 3, 2, 3]];
const AT_ONCE = 4;
const POINTS = 6000; // of all runs together, so that thirty draw as fast as three
const MOST_BUCKETS = 1200;
const RENEW_MS = 15000;
const WAIT_MS = 200;
const MEMORY = ["reserved_bytes", "resident_bytes", "allocated_bytes"];

const compact = (value) => (Math.abs(value) >= 0.01 ? String(Number(value.toPrecision(4))) : rate(value));
const FORMATS = {
  learning_rate: { format: rate },
  tokens_per_second: { format: (value) => number(value, value >= 100 ? 0 : 1) },
  memory: { format: bytes, formatAxis: axisBytes },
};
const PLACES = { step: (x) => number(x, 0), epoch: (x) => number(x, 2), tokens: (x) => number(x, 0), seconds: duration };

/** `[x, y]` of a metric from the answer of a run's series address. */
export function points(metric, body) {
  if (metric === "eval") {
    const found = body.evals.filter((data) => data.split === "validation" && data.model === "tuned");
    return [found.map((data) => data.x), found.map((data) => data.loss)];
  }
  const key = metric === "memory" ? MEMORY.find((name) => name in body.series) : metric;
  const part = body.series[key];
  if (!part) return [[], []];
  if (metric === "memory") return [body.x, part.max ?? part.mean];
  return [body.x, metric === "learning_rate" ? part.mean : part.ema];
}

class CompareCharts extends HTMLElement {
  #fetched = new Map();
  #seen = new Set();
  #range = null;
  #waiting = [];
  #busy = 0;
  #timers = [];

  connectedCallback() {
    this.data = JSON.parse(document.getElementById("compare-data").textContent);
    this.slider = this.querySelector("input[type=range]");
    this.axis = this.querySelector("select");
    this.reset = this.querySelector("[data-reset]");
    this.slider.addEventListener("input", () => this.#smoothed());
    this.axis.addEventListener("change", () => this.#zoom(null));
    this.reset.addEventListener("click", () => this.#zoom(null));
    this.addEventListener("chart-zoom", (event) => this.#zoom(event.detail));
    this.observer = new IntersectionObserver((entries) => entries.filter((entry) => entry.isIntersecting).forEach(({ target }) => this.#show(target)), { rootMargin: "120px" });
    for (const chart of this.querySelectorAll("live-chart")) this.observer.observe(chart);
    if (this.data.moving) this.#timers.push(setInterval(() => this.#renew(), RENEW_MS));
  }

  disconnectedCallback() {
    this.observer.disconnect();
    for (const timer of this.#timers) clearInterval(timer);
  }

  #smoothed() {
    this.querySelector("output").textContent = Number(this.slider.value).toFixed(2);
    clearTimeout(this.pending);
    this.pending = setTimeout(() => this.#redraw(), WAIT_MS);
  }

  /** Shows a range of x in all charts, or everything: the server cuts the range into as many pieces as before, so that it is finer. */
  #zoom(range) {
    this.#range = range;
    this.reset.disabled = !range;
    this.#redraw();
  }

  #renew() {
    if (document.hidden) return;
    this.#fetched.clear();
    this.#redraw();
  }

  #show(chart) {
    this.observer.unobserve(chart);
    this.#seen.add(chart);
    this.#draw(chart);
  }

  #redraw() {
    for (const chart of this.#seen) this.#draw(chart);
  }

  async #draw(chart) {
    const metric = chart.getAttribute("metric");
    const asked = this.#query(metric);
    const fault = this.querySelector("[data-fault]");
    let bodies;
    try {
      bodies = await Promise.all(this.data.runs.map((run) => this.#body(run, asked)));
    } catch {
      fault.hidden = false;
      return;
    }
    if (asked !== this.#query(metric) || !this.isConnected) return; // another axis was chosen meanwhile
    fault.hidden = true;
    const lines = this.data.runs.map((run, index) => ({ name: String(index), label: run.label, colour: run.colour, dash: DASHES[run.dash], points: metric === "eval" }));
    const drawn = bodies.map((body) => points(metric, body));
    const known = drawn.flatMap(([x], index) => (x.length ? [index] : []));
    const [x, ...columns] = known.length ? uPlot.join(known.map((index) => drawn[index])) : [[]];
    chart.xWord = this.data.axes[this.axis.value];
    chart.define(lines, { format: compact, ...FORMATS[metric], formatX: PLACES[this.axis.value] });
    chart.draw(x, Object.fromEntries(known.map((index, place) => [String(index), columns[place].map((value) => value ?? null)])));
    chart.zoom(this.#range);
  }

  #query(metric) {
    const buckets = Math.min(MOST_BUCKETS, Math.ceil(POINTS / this.data.runs.length));
    const query = new URLSearchParams({ x: this.axis.value, smoothing: this.slider.value, buckets });
    query.set("keys", metric === "eval" ? "loss" : metric); // evaluations come with every answer
    if (this.#range) {
      query.set("start", this.#range.min);
      query.set("end", this.#range.max);
    }
    return query.toString();
  }

  #body(run, query) {
    const address = `${run.url}?${query}`;
    if (!this.#fetched.has(address)) {
      const answer = this.#turn(() => fetch(address)).then((found) => {
        if (!found.ok) throw new Error(`${address}: ${found.status}`);
        return found.json();
      });
      answer.catch(() => this.#fetched.delete(address)); // the next try asks again
      this.#fetched.set(address, answer);
    }
    return this.#fetched.get(address);
  }

  /** Runs `ask` when fewer than `AT_ONCE` others are under way. */
  async #turn(ask) {
    if (this.#busy >= AT_ONCE) await new Promise((resolve) => this.#waiting.push(resolve));
    this.#busy += 1;
    try {
      return await ask();
    } finally {
      this.#busy -= 1;
      this.#waiting.shift()?.();
    }
  }
}

customElements.define("compare-charts", CompareCharts);
