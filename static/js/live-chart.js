// <live-chart metric heading [log] [ranked] [csv csv-words]>: one uPlot chart with a readout, keyboard, log scale and a table of its points.
//
// `define(lines)` says what is drawn, `draw(x, columns, marks)` gives the points. Everything is built with text nodes, and destroyed with
// the element. Events: `chart-zoom` {min, max} when the reader zooms by dragging or by the keys + and -, or resets by a double click or the
// key 0 (null); `chart-log` when the scale is changed.
import uPlot from "../vendor/uplot-1.6.32/uPlot.esm.js";
import { drawMarks, drawName } from "./chart-marks.js";

const HEIGHT = 240;
const TABLE_ROWS = 200;

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** The colour behind a custom property, as the canvas wants it: `light-dark()` is resolved by the element's style. */
function colour(element, name) {
  const probe = make("span");
  element.append(probe);
  probe.style.color = `var(${name})`;
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

function faded(rgb, alpha) {
  return rgb.replace(/^rgb\((.*)\)$/, `rgba($1, ${alpha})`);
}

export class LiveChart extends HTMLElement {
  #plot = null;
  #lines = [];
  #x = [];
  #columns = [];
  #marks = [];
  #format = String;
  #formatAxis = String;
  #log = false;
  #zoomed = false;
  #resize = null;
  #pending = 0;
  #onTheme = () => this.#rebuild();

  connectedCallback() {
    this.#log = this.hasAttribute("log");
    const heading = make("h3", {}, this.getAttribute("heading"));
    this.logButton = make("button", { class: "btn small quiet", type: "button", "aria-pressed": String(this.#log) }, "log");
    this.logButton.setAttribute("aria-label", `${this.getAttribute("heading")}: log`);
    this.logButton.addEventListener("click", () => this.#toggleLog());
    this.readout = make("div", { class: "readout" });
    this.plotBox = make("div", { class: "plot", tabindex: "0", role: "img" });
    this.spoken = make("p", { class: "sr", "aria-live": "polite" });
    this.table = make("div", { class: "scroll", tabindex: "0", role: "group" });
    this.table.setAttribute("aria-label", `${this.getAttribute("heading")}: table`);
    this.details = make("details", { class: "sm" }, make("summary", {}, this.getAttribute("table-words") ?? "Table"), this.table);
    if (this.hasAttribute("csv")) this.details.append(make("a", { href: this.getAttribute("csv"), download: "" }, this.getAttribute("csv-words")));
    this.details.addEventListener("toggle", () => this.#fillTable());
    this.plotBox.addEventListener("keydown", (event) => this.#key(event));
    this.replaceChildren(make("div", { class: "bar" }, heading, make("span", { class: "grow" }), this.logButton), this.readout, this.plotBox, this.spoken, this.details);
    this.#empty();
    this.#resize = new ResizeObserver(() => this.#plot?.setSize({ width: this.plotBox.clientWidth, height: HEIGHT }));
    this.#resize.observe(this.plotBox);
    document.addEventListener("graft:theme", this.#onTheme);
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.scheme.addEventListener("change", this.#onTheme);
  }

  disconnectedCallback() {
    cancelAnimationFrame(this.#pending);
    this.#resize.disconnect();
    document.removeEventListener("graft:theme", this.#onTheme);
    this.scheme.removeEventListener("change", this.#onTheme);
    this.#plot?.destroy();
    this.#plot = null;
  }

  /**
   * What the chart shows. Each line: `label`, `colour` (s1 to s8), and optionally `dash` (true, or lengths in pixels), `faint`, `points`,
   * `low` and `high` (the names of columns that bound a band around it), `written` (left or right: where a constant line bears its name);
   * `name` is its own column. `format` writes a value, `formatX` a place on the x axis,
   * `formatAxis` the values of the y axis where they need each other to be told apart.
   */
  define(lines, { format, formatAxis, formatX }) {
    this.#lines = lines;
    this.#format = format;
    this.#formatAxis = formatAxis ?? ((places) => places.map((value) => (value === null ? "" : format(value))));
    this.formatX = formatX;
    this.#rebuild();
  }

  /** The points: `x` ascending, `columns` by name (null where there is none), `marks` what happened at places: `{kind, x}` (chart-marks.js). */
  draw(x, columns, marks = []) {
    this.#x = x;
    this.#columns = columns;
    this.#marks = marks;
    if (!this.#pending) {
      this.#pending = requestAnimationFrame(() => {
        this.#pending = 0;
        this.#update();
      });
    }
  }

  /** Shows x from `range.min` to `range.max`, or everything where `range` is null; says nothing to others. */
  zoom(range) {
    this.#zoomed = Boolean(range);
    if (!this.#plot || !this.#x.length) return;
    this.#plot.setScale("x", range ?? { min: this.#x[0], max: this.#x.at(-1) });
  }

  #data() {
    const positive = (values) => (this.#log ? values.map((value) => (value > 0 ? value : null)) : values);
    const names = this.#lines.flatMap((line) => [line.name, ...(line.low ? [line.low, line.high] : [])]);
    return [this.#x, ...names.map((name) => positive(this.#columns[name] ?? this.#x.map(() => null)))];
  }

  #update() {
    if (!this.#x.length) return;
    if (!this.#plot) this.#rebuild();
    // A reader who has zoomed keeps what is seen; new points then wait outside.
    else this.#plot.setData(this.#data(), !this.#zoomed);
    if (this.#zoomed) this.#plot.redraw();
    this.#describe();
    this.#read(null);
    if (this.details.open) this.#fillTable();
  }

  #rebuild() {
    const range = this.#zoomed && this.#plot ? [this.#plot.scales.x.min, this.#plot.scales.x.max] : null;
    this.#plot?.destroy();
    this.#plot = null;
    if (!this.#x.length || !this.#lines.length || !this.plotBox.clientWidth) return;
    this.plotBox.replaceChildren();
    this.#plot = new uPlot(this.#options(), this.#data(), this.plotBox);
    if (range) this.#plot.setScale("x", { min: range[0], max: range[1] });
    this.#read(null);
  }

  #options() {
    const axis = {
      stroke: colour(this, "--ink-2"),
      font: `11px ${getComputedStyle(this.readout).fontFamily}`,
      grid: { stroke: colour(this, "--line"), width: 1 },
      ticks: { show: false },
    };
    return {
      width: this.plotBox.clientWidth,
      height: HEIGHT,
      padding: [8, 28, 0, 0],
      legend: { show: false },
      scales: { x: { time: false }, y: this.#log ? { distr: 3 } : {} },
      axes: [
        { ...axis, size: 28, values: (_plot, places) => places.map((place) => this.formatX(place)), space: 64 },
        { ...axis, size: 64, values: (_plot, places) => this.#formatAxis(places) },
      ],
      cursor: { sync: { key: "run", setSeries: false, scales: ["x", null] }, drag: { x: true, y: false, setScale: false }, y: false },
      series: [{}, ...this.#seriesOptions()],
      bands: this.#bands(),
      hooks: {
        setCursor: [(plot) => this.#read(plot.cursor.idx)],
        setSelect: [(plot) => this.#selected(plot)],
        draw: [(plot) => this.#drawMarks(plot), (plot) => this.#drawNames(plot)],
        ready: [(plot) => plot.over.addEventListener("dblclick", () => this.#announceZoom(null))],
      },
    };
  }

  #seriesOptions() {
    return this.#lines.flatMap((line) => {
      const stroke = colour(this, `--${line.colour}`);
      const own = {
        stroke: line.faint ? faded(stroke, 0.4) : stroke,
        width: line.faint ? 1 : 2,
        dash: Array.isArray(line.dash) ? line.dash : line.dash ? [6, 4] : undefined,
        spanGaps: true,
        points: { show: Boolean(line.points), size: 5, fill: stroke },
      };
      // An outlier of one step is a bucket one pixel wide: by its fill alone it would not be seen.
      const edge = { stroke: faded(stroke, 0.3), width: 1, spanGaps: true, points: { show: false } };
      return line.low ? [own, edge, edge] : [own];
    });
  }

  #bands() {
    const bands = [];
    let index = 1;
    for (const line of this.#lines) {
      if (line.low) bands.push({ series: [index + 2, index + 1], fill: faded(colour(this, `--${line.colour}`), 0.14) });
      index += line.low ? 3 : 1;
    }
    return bands;
  }

  /** The names of constant lines, written upon them. */
  #drawNames(plot) {
    for (const line of this.#lines.filter(({ written }) => written)) {
      const value = this.#lastValue(line.name, null)?.[1];
      if (value !== undefined) drawName(plot, value, `${line.label} ${this.#format(value)}`, colour(this, `--${line.colour}`), line.written);
    }
  }

  #drawMarks(plot) {
    if (this.#marks.length) drawMarks(plot, this.#marks, (name) => colour(this, name));
  }

  #selected(plot) {
    if (plot.select.width < 4) return;
    const min = plot.posToVal(plot.select.left, "x");
    const max = plot.posToVal(plot.select.left + plot.select.width, "x");
    plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.#announceZoom({ min, max });
  }

  #announceZoom(range) {
    this.dispatchEvent(new CustomEvent("chart-zoom", { bubbles: true, detail: range }));
  }

  #toggleLog() {
    this.#log = !this.#log;
    this.logButton.setAttribute("aria-pressed", String(this.#log));
    this.#rebuild();
    this.dispatchEvent(new CustomEvent("chart-log", { bubbles: true }));
  }

  /** Whether the scale is logarithmic. */
  get log() {
    return this.#log;
  }

  /** The last index at or before `index` where the line has a value; the last of all where `index` is null. */
  #lastValue(name, index) {
    const values = this.#columns[name] ?? [];
    for (let at = index ?? values.length - 1; at >= 0; at -= 1) if (values[at] !== null && values[at] !== undefined) return [at, values[at]];
    return null;
  }

  #read(index) {
    const place = make("span", {}, `${this.xWord ?? "step"} ${this.#x.length ? this.formatX(this.#x[index ?? this.#x.length - 1]) : "–"}`);
    const values = this.#ranked(index).map(([line, found]) => {
      const key = make("i", { class: `key${line.dash ? " dashed" : ""}`, "aria-hidden": "true" });
      return make("span", { class: `${line.colour}${line.faint ? " faint" : ""}` }, key, `${line.label} ${found ? this.#format(found[1]) : "–"}`);
    });
    this.readout.replaceChildren(place, ...values);
  }

  /** Each line with its last value at or before `index`; with the attribute `ranked` the least value first. */
  #ranked(index) {
    const found = this.#lines.map((line) => [line, this.#lastValue(line.name, index)]);
    const value = ([_line, place]) => (place ? place[1] : Infinity);
    return this.hasAttribute("ranked") ? found.sort((one, other) => value(one) - value(other)) : found;
  }

  #sentence(index) {
    const said = this.#ranked(index).map(([line, found]) => {
      return `${line.label} ${found ? this.#format(found[1]) : "–"}`;
    });
    return `${this.xWord ?? "step"} ${this.formatX(this.#x[index])}: ${said.join(", ")}`;
  }

  #describe() {
    this.plotBox.setAttribute("aria-label", `${this.getAttribute("heading")}, ${this.#sentence(this.#x.length - 1)}`);
  }

  #empty() {
    this.plotBox.setAttribute("aria-label", this.getAttribute("heading"));
    this.plotBox.replaceChildren(make("p", { class: "empty" }, this.getAttribute("empty-words") ?? "–"));
  }

  #key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity }[event.key];
    if (!this.#plot || event.ctrlKey || event.metaKey || event.altKey) return;
    if ("+-0".includes(event.key)) this.#zoomByKey(event.key);
    if (step === undefined) return;
    event.preventDefault();
    const last = this.#x.length - 1;
    const from = this.#plot.cursor.idx ?? last;
    const index = Math.min(last, Math.max(0, from + step));
    this.#plot.setCursor({ left: this.#plot.valToPos(this.#x[index], "x"), top: HEIGHT / 2 });
    this.spoken.textContent = this.#sentence(index);
  }

  /** Half or twice as much around the cursor; 0 shows everything. */
  #zoomByKey(key) {
    if (key === "0") return this.#announceZoom(null);
    const { min, max } = this.#plot.scales.x;
    const middle = this.#x[this.#plot.cursor.idx] ?? (min + max) / 2;
    const half = ((max - min) / 2) * (key === "+" ? 0.5 : 2);
    const range = { min: middle - half, max: middle + half };
    this.#announceZoom(half * 2 >= this.#x.at(-1) - this.#x[0] && key === "-" ? null : range);
  }

  #fillTable() {
    if (!this.details.open) return;
    const rows = this.#x.map((_x, index) => index).filter((index) => this.#lines.some((line) => this.#columns[line.name]?.[index] != null));
    const stride = Math.max(1, Math.ceil(rows.length / TABLE_ROWS));
    const shown = rows.filter((_row, place) => place % stride === 0 || place === rows.length - 1);
    const head = make("tr", {}, ...[this.xWord ?? "step", ...this.#lines.map((line) => line.label)].map((word) => make("th", { scope: "col", class: "num" }, word)));
    const body = shown.map((index) =>
      make(
        "tr",
        {},
        make("td", { class: "num" }, this.formatX(this.#x[index])),
        ...this.#lines.map((line) => make("td", { class: "num" }, this.#columns[line.name]?.[index] == null ? "" : this.#format(this.#columns[line.name][index]))),
      ),
    );
    this.table.replaceChildren(make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
  }
}

customElements.define("live-chart", LiveChart);
