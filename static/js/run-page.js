// <run-page>: the page of one run. Loads the curves, follows the socket, writes live figures as text, and asks the server for the parts
// that it renders (header, evaluation, samples, artifacts, history) when an event says that they have changed.
import { Curves, TAIL_POINTS, definition } from "./curves.js";
import * as formats from "./formats.js";
import { LiveSocket, later } from "./live.js";
import "./live-chart.js";

const DRAW_MS = 250;
const REFRESH_MS = 400;
const ENDED = new Set(["succeeded", "failed", "cancelled"]);

class RunPage extends HTMLElement {
  #curves = null;
  #socket = null;
  #zoom = null;
  #timers = {};
  #seen = "";
  #early = [];
  #phaseName = "";

  connectedCallback() {
    this.words = JSON.parse(document.getElementById("words").textContent);
    this.charts = [...this.querySelectorAll("live-chart[metric]")];
    if (this.charts.length) this.#controls();
    this.#load();
    this.#scrollLog();
    this.#socket = new LiveSocket(this.dataset.socket, this.dataset.cursor, {
      run: (status) => this.#status(status),
      events: (events) => this.#events(events),
      touch: (state) => this.#touch(state),
      refused: () => location.reload(),
    });
    if (ENDED.has(this.#state())) this.#touch("ended");
    else this.#socket.start();
  }

  disconnectedCallback() {
    this.#socket.stop();
    Object.values(this.#timers).forEach(clearTimeout);
  }

  /** Does `work` once, `wait` milliseconds after the first of the calls of this name: many events make one request, and none starves. */
  #soon(name, wait, work) {
    this.#timers[name] ??= setTimeout(() => {
      delete this.#timers[name];
      work();
    }, wait);
  }

  #state() {
    return document.getElementById("run-header").dataset.state;
  }

  // -- charts -------------------------------------------------------------------------------------------------------

  #controls() {
    const smoothing = this.querySelector("#smoothing");
    smoothing.addEventListener("input", () => {
      this.querySelector("#smoothing-value").textContent = Number(smoothing.value).toFixed(2);
      this.#soon("load", 200, () => this.#load());
    });
    this.querySelector("#x-axis").addEventListener("change", () => {
      this.#zoom = null;
      this.#load();
    });
    this.querySelector("#reset-zoom").addEventListener("click", () => this.#zoomTo(null));
    this.addEventListener("chart-zoom", (event) => this.#zoomTo(event.detail));
  }

  #zoomTo(range) {
    this.#zoom = range;
    this.querySelector("#reset-zoom").disabled = !range;
    for (const chart of this.charts) chart.zoom(range);
  }

  async #load() {
    if (!this.charts.length) return; // of a run that makes no steps
    const query = new URLSearchParams({ x: this.querySelector("#x-axis").value, smoothing: this.querySelector("#smoothing").value });
    const answer = await fetch(`${this.dataset.series}?${query}`, { headers: { Accept: "application/json" } });
    if (!answer.ok) return this.#soon("load", 3000, () => this.#load());
    const curves = new Curves(await answer.json());
    // What came by the socket while the answer was on its way is newer than it, or in it.
    for (const event of this.#early) this.#add(curves, event);
    this.#early = this.#early.filter((event) => later(`${event.attempt}-${event.seq}`, curves.cursor));
    this.#curves = curves;
    this.#draw();
    if (this.#zoom) this.#zoomTo(this.#zoom);
  }

  #add(curves, event) {
    if (!later(`${event.attempt}-${event.seq}`, curves.cursor)) return;
    if (event.kind === "step") curves.step(event.data);
    if (event.kind === "eval" && event.data.split === "validation" && event.data.model === "tuned") curves.validation(event.data);
  }

  #draw() {
    const curves = this.#curves;
    for (const chart of this.charts) {
      const metric = chart.getAttribute("metric");
      const { lines, ...formatting } = definition(metric, curves, this.words);
      const key = JSON.stringify([curves.axis, lines]);
      chart.xWord = this.words[curves.axis];
      if (chart.dataset.defined !== key) {
        chart.dataset.defined = key;
        chart.define(lines, { ...formatting, formatX: this.#formatOfX() });
      }
      const [x, columns] = metric === "loss" ? curves.loss() : [curves.x, curves.columns];
      chart.draw(x, columns, curves.nonfinite);
    }
  }

  #formatOfX() {
    if (this.#curves.axis === "seconds") return formats.duration;
    return this.#curves.axis === "epoch" ? (value) => formats.number(value, 2) : (value) => formats.number(value);
  }

  // -- what the socket says -------------------------------------------------------------------------------------------

  #touch(state) {
    const place = this.querySelector("[data-live-state]");
    if (!place) return;
    place.dataset.state = state;
    place.textContent = this.words[`contact_${state}`];
  }

  /** The header is the server's; it is asked for again when more than its figures has changed. */
  #status(status) {
    const now = JSON.stringify([status.state, status.desired, status.attempt, status.can, status.queue_position, status.phase?.name]);
    const first = this.#seen === "";
    if (now === this.#seen) return;
    this.#seen = now;
    if (first && status.state === this.#state()) return;
    this.#refresh("run-header", "graft:state");
    this.#refresh("history", "graft:history");
    if (!ENDED.has(status.state)) return;
    for (const part of ["evaluation", "samples", "artifacts"]) this.#refresh(part, `graft:${part}`);
    this.#soon("ended", 1500, () => this.#finish());
  }

  #finish() {
    this.#socket.stop();
    this.#touch("ended");
    this.#load();
  }

  #refresh(id, name) {
    this.#soon(id, REFRESH_MS, () => document.getElementById(id)?.dispatchEvent(new CustomEvent(name)));
  }

  #events(events) {
    this.#early.push(...events.filter((event) => event.kind === "step" || event.kind === "eval"));
    for (const event of events) {
      if (this.#curves) this.#add(this.#curves, event);
      this.#act(event);
    }
    this.#early = this.#early.slice(-TAIL_POINTS);
    if (!this.#curves) return;
    if (this.#curves.tail > TAIL_POINTS) this.#soon("load", 0, () => this.#load());
    else this.#soon("draw", DRAW_MS, () => this.#draw());
  }

  #act(event) {
    const { kind, data } = event;
    if (kind === "step") this.#figures(data);
    if (kind === "phase") this.#phase(data);
    if (kind === "eval") this.#measured(data);
    if (kind === "method") for (const part of ["blocks", "composition", "analysis"]) this.#refresh(part, `graft:${part}`);
    if (kind === "sample") this.#refresh("samples", "graft:samples");
    // A new attempt takes back the steps after its checkpoint: the curves are read anew.
    if (kind === "plan") this.#soon("load", 500, () => this.#load());
    if (kind === "plan" || kind === "warning") this.#refresh("run-header", "graft:state");
    if (["log", "warning", "checkpoint", "finished"].includes(kind)) this.#refresh("log", "graft:log");
  }

  #write(name, text) {
    const place = this.querySelector(`[data-live="${name}"]`);
    if (place && place.textContent !== text) place.textContent = text;
  }

  #figures(data) {
    const memory = data.memory ?? {};
    this.#write("loss", formats.number(data.loss, 3));
    this.#write("tokens", formats.number(data.tokens_per_second, 0));
    this.#write("memory", formats.bytes(memory.resident_bytes ?? memory.device_used_bytes ?? memory.reserved_bytes));
    // Of a GPU what this run has reserved, as the server counts it: the device's use may hold others' too.
    const own = memory.resident_bytes ?? memory.reserved_bytes;
    const peak = this.querySelector('[data-live="peak"]');
    if (peak && own > Number(peak.dataset.bytes)) {
      peak.dataset.bytes = own;
      this.#write("peak", formats.bytes(own));
    }
    const total = this.querySelector("[data-total-steps]")?.dataset.totalSteps;
    if (!Number(total)) return;
    this.#write("progress", this.words.progress.replace("{done}", formats.number(data.step)).replace("{total}", formats.number(Number(total))));
    if (formats.isNumber(data.eta_seconds)) this.#write("eta", this.words.eta.replace("{time}", formats.duration(data.eta_seconds)));
    this.#bar(data.step / Number(total));
  }

  #phase(data) {
    if (data.name !== this.#phaseName) this.#refresh("log", "graft:log");
    this.#phaseName = data.name;
    if (data.name === "training") return;
    const figure = data.unit === "bytes" ? formats.bytes : formats.number;
    const unit = data.unit === "bytes" || !data.unit ? "" : ` ${data.unit}`;
    this.#write("progress", this.words.phases[data.name] + (data.total ? `: ${figure(data.done ?? 0)} / ${figure(data.total)}${unit}` : ""));
    this.#write("eta", "");
    this.#bar(data.total ? (data.done ?? 0) / data.total : null);
  }

  #bar(share) {
    const bar = this.querySelector('[data-live="bar"]');
    if (!bar) return;
    if (share === null) bar.removeAttribute("value");
    else bar.value = share;
  }

  #measured(data) {
    if (data.split === "validation" && data.model === "tuned") this.#write("eval", formats.number(data.loss, 3));
    this.#refresh("evaluation", "graft:evaluation");
  }

  // -- the log ----------------------------------------------------------------------------------------------------------

  /** Keeps the end of the log in sight, unless the reader has scrolled up. */
  #scrollLog() {
    const atEnd = (list) => list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    const list = () => this.querySelector("[data-log]");
    let follow = true;
    list().scrollTop = list().scrollHeight;
    this.addEventListener("htmx:before:swap", () => (follow = atEnd(list())));
    this.addEventListener("htmx:after:swap", () => follow && (list().scrollTop = list().scrollHeight));
  }
}

customElements.define("run-page", RunPage);
