// <run-page>: the page of one run. Loads the curves, follows the socket, writes live figures as text, and asks the server for the parts
// that it renders (header, evaluation, samples, artifacts, history) when an event says that they have changed.
import { Curves, TAIL_POINTS, definition } from "./curves.js";
import * as formats from "./formats.js";
import { LiveSocket, later } from "./live.js";
import "./live-chart.js";

const DRAW_MS = 120;
const REFRESH_MS = 400;
const AGE_MS = 250;
// A worker renews its lease every ten seconds or so; one that has not for so long is out of reach, whatever the socket says.
const SILENCE_SECONDS = 30;
const ACTIVE = new Set(["starting", "running", "stopping", "finalizing"]);
const ENDED = new Set(["succeeded", "failed", "cancelled"]);

class RunPage extends HTMLElement {
  #curves = null;
  #socket = null;
  #window = null;
  #zoom = null;
  #timers = {};
  #seen = "";
  #early = [];
  #phaseName = "";
  #pointAt = 0;
  #heardAt = 0;
  #contact = "";
  #clock = 0;

  connectedCallback() {
    this.words = JSON.parse(document.getElementById("words").textContent);
    this.charts = [...this.querySelectorAll("live-chart[metric]")];
    if (this.charts.length) this.#controls();
    this.#pointAt = Number(this.querySelector("[data-point-at]")?.dataset.pointAt);
    this.#clock = setInterval(() => this.#age(), AGE_MS);
    this.#load();
    this.#scrollLog();
    this.#socket = new LiveSocket(this.dataset.socket, this.dataset.cursor, {
      run: (status) => this.#status(status),
      events: (events) => this.#events(events),
      beat: (t) => this.#beat(t),
      touch: (state) => this.#touch(state),
      refused: () => location.reload(),
    });
    if (ENDED.has(this.#state())) this.#touch("ended");
    else this.#socket.start();
  }

  disconnectedCallback() {
    this.#socket.stop();
    clearInterval(this.#clock);
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
      this.#soon("address", 400, () => this.#remember());
    });
    this.querySelector("#x-axis").addEventListener("change", () => {
      this.#zoomTo(null);
      this.#load();
    });
    this.querySelector("#reset-zoom").addEventListener("click", () => this.#zoomTo(null));
    // To follow is to see the newest point, which a reader who has zoomed has left.
    this.querySelector("#follow").addEventListener("change", (event) => this.#zoomTo(event.target.checked ? null : this.#span()));
    this.addEventListener("chart-zoom", (event) => this.#zoomTo(event.detail));
    this.addEventListener("chart-log", () => this.#remember());
    const asked = new URLSearchParams(location.search);
    const [min, max] = [Number(asked.get("from")), Number(asked.get("to"))];
    if (asked.has("from") && max > min) this.#zoomTo({ min, max });
  }

  /** Everything that there is at this moment: what is seen stays, while new points come in outside of it. */
  #span() {
    const x = this.#curves?.x ?? [];
    return x.length ? { min: x[0], max: x.at(-1) } : null;
  }

  #zoomTo(range) {
    this.#zoom = range;
    this.#window = null;
    this.querySelector("#reset-zoom").disabled = !range;
    this.querySelector("#follow").checked = !range;
    for (const chart of this.charts) chart.zoom(range);
    this.#remember();
    if (!this.#curves) return;
    if (range) this.#refine();
    else this.#draw();
  }

  /** The state of the toolbar goes into the address, so that a link shows the same. */
  #remember() {
    const address = new URL(location.href);
    const put = (name, value) => (value === null ? address.searchParams.delete(name) : address.searchParams.set(name, value));
    const [x, smoothing] = [this.querySelector("#x-axis").value, this.querySelector("#smoothing").value];
    const logs = this.charts.filter((chart) => chart.log).map((chart) => chart.getAttribute("metric"));
    put("x", x === "step" ? null : x);
    put("smoothing", smoothing === "0.9" ? null : smoothing);
    put("log-scale", logs.join(",") === "gradient_norm" ? null : logs.join(","));
    put("from", this.#zoom ? String(this.#zoom.min) : null);
    put("to", this.#zoom ? String(this.#zoom.max) : null);
    history.replaceState(history.state, "", address);
  }

  async #ask(range = null) {
    const query = new URLSearchParams({ x: this.querySelector("#x-axis").value, smoothing: this.querySelector("#smoothing").value });
    if (range) {
      query.set("start", range.min);
      query.set("end", range.max);
    }
    const answer = await fetch(`${this.dataset.series}?${query}`, { headers: { Accept: "application/json" } });
    return answer.ok ? new Curves(await answer.json()) : null;
  }

  async #load() {
    if (!this.charts.length) return; // of a run that makes no steps
    const curves = await this.#ask().catch(() => null);
    if (!curves) return this.#soon("load", 3000, () => this.#load());
    // What came by the socket while the answer was on its way is newer than it, or in it.
    for (const event of this.#early) this.#add(curves, event);
    this.#early = this.#early.filter((event) => later(`${event.attempt}-${event.seq}`, curves.cursor));
    this.#curves = curves;
    this.#draw();
    if (this.#zoom) this.#refine();
  }

  /** The steps within the zoom in buckets of their own: what was one bucket becomes many. */
  async #refine() {
    const range = this.#zoom;
    const found = await this.#ask(range).catch(() => null);
    // The reader may have gone on meanwhile.
    if (!found?.x.length || this.#zoom !== range) return;
    this.#window = found;
    this.#draw();
    for (const chart of this.charts) chart.zoom(range);
  }

  #add(curves, event) {
    if (!later(`${event.attempt}-${event.seq}`, curves.cursor)) return;
    if (event.kind === "step") curves.step(event.data);
    if (event.kind === "checkpoint") curves.checkpoint(event.data);
    if (event.kind === "eval" && event.data.split === "validation" && event.data.model === "tuned") curves.validation(event.data);
  }

  #draw() {
    const curves = this.#window ?? this.#curves;
    const { limitBytes, estimateBytes, clipNorm } = this.dataset;
    const limits = { memory: Number(limitBytes), estimate: Number(estimateBytes), clip: Number(clipNorm) };
    for (const chart of this.charts) {
      const metric = chart.getAttribute("metric");
      const { lines, ...formatting } = definition(metric, curves, this.words, limits);
      const key = JSON.stringify([curves.axis, lines]);
      chart.xWord = this.words[curves.axis];
      if (chart.dataset.defined !== key) {
        chart.dataset.defined = key;
        chart.define(lines, { ...formatting, formatX: this.#formatOfX() });
      }
      const [x, columns] = metric === "loss" ? curves.loss() : [curves.x, curves.columns];
      chart.draw(x, columns, curves.marks);
    }
    this.dataset.drawn = String(curves.shown);
  }

  #formatOfX() {
    if (this.#curves.axis === "seconds") return formats.duration;
    return this.#curves.axis === "epoch" ? (value) => formats.number(value, 2) : (value) => formats.number(value);
  }

  // -- what the socket says -------------------------------------------------------------------------------------------

  #touch(state) {
    this.#contact = state;
    const place = this.querySelector("[data-live-state]");
    if (!place) return;
    place.dataset.state = state;
    place.textContent = this.words[`contact_${state}`];
  }

  /** The server's clock, against which the worker's last sign of life is held. */
  #beat(t) {
    if (!ACTIVE.has(this.#state()) || !this.#heardAt) return;
    if (t - this.#heardAt > SILENCE_SECONDS) this.#touch("silent");
    else if (this.#contact === "silent") this.#touch("live");
  }

  /** How old the newest point is, and how long the run has taken. */
  #age() {
    if (!ACTIVE.has(this.#state())) return;
    const now = Date.now() / 1000;
    if (this.#pointAt) this.#write("age", this.words.age.replace("{time}", formats.duration(Math.max(0, now - this.#pointAt))));
    const started = Number(this.querySelector("[data-started-at]")?.dataset.startedAt);
    if (started) this.#write("elapsed", this.words.elapsed.replace("{time}", formats.duration(now - started)));
  }

  /** The header is the server's; it is asked for again when more than its figures has changed. */
  #status(status) {
    const now = JSON.stringify([status.state, status.desired, status.attempt, status.can, status.queue_position, status.phase?.name]);
    const first = this.#seen === "";
    this.#heardAt = Date.parse(status.changed_at) / 1000;
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
    this.#early.push(...events.filter((event) => ["step", "eval", "checkpoint"].includes(event.kind)));
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
    if (kind === "step") this.#pointAt = event.t;
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
    this.#write("gpu", formats.percent(data.device?.utilisation, 0));
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
