// The curves of a run in the browser: the server's snapshot (smoothed whole, then cut into buckets) and the live points after it.
import { axisBytes, bytes, number, percent, rate } from "./formats.js";

/** The most live points that are kept beside a snapshot; beyond it a new snapshot is due. */
export const TAIL_POINTS = 3000;
// A limit is drawn as a line from this share of it on; below it would press the rest flat, and stands in the heading alone.
const NEAR = 0.1;

const AXES = { step: "step", epoch: "epoch", tokens: "tokens", seconds: "elapsed_seconds" };
const MEMORY = ["resident_bytes", "allocated_bytes", "reserved_bytes", "device_used_bytes"];
const GAUGES = ["utilisation", "celsius"];

export class Curves {
  /** `body` is the answer of the series address. */
  constructor(body) {
    this.axis = body.axis;
    this.cursor = body.cursor;
    this.x = [...body.x];
    this.marks = [...body.marks, ...body.nonfinite_x.map((x) => ({ kind: "nonfinite", x }))];
    this.shown = body.shown;
    this.columns = {};
    this.tail = 0;
    this.smoothing = body.smoothing;
    this.averages = structuredClone(body.ema);
    for (const [key, part] of Object.entries(body.series)) {
      for (const [name, values] of Object.entries(part)) this.columns[`${key}.${name}`] = [...values];
    }
    this.evals = body.evals.filter((data) => data.split === "validation" && data.model === "tuned").map((data) => [data.x, data.loss]);
  }

  /** Adds the data of a live `step` event. */
  step(data) {
    const x = data[AXES[this.axis]];
    if (typeof x !== "number" || (this.x.length && x < this.x.at(-1))) return;
    if (data.nonfinite) this.marks.push({ kind: "nonfinite", x });
    const values = { ...data, ...(data.memory ?? {}), ...(data.device ?? {}) };
    const keys = new Set([...Object.keys(this.averages), "loss", "learning_rate", "gradient_norm", "tokens_per_second", ...[...MEMORY, ...GAUGES].filter((key) => key in values)]);
    for (const key of keys) this.#push(key, values[key] ?? null);
    this.x.push(x);
    this.tail += 1;
  }

  /** Adds a live `checkpoint` event. */
  checkpoint(data) {
    const x = this.axis === "step" ? data.step : this.x.at(-1);
    if (typeof x === "number") this.marks.push({ kind: "checkpoint", x });
  }

  /** Adds the data of a live `eval` event of the tuned model on the validation rows. */
  validation(data) {
    const x = this.axis === "step" ? data.step : this.axis === "epoch" ? data.epoch : this.x.at(-1);
    if (typeof x === "number") this.evals.push([x, data.loss]);
  }

  #push(key, value) {
    const average = (this.averages[key] ??= { l: 0, w: 0 });
    if (value !== null) {
      average.l = this.smoothing * average.l + (1 - this.smoothing) * value;
      average.w = this.smoothing * average.w + (1 - this.smoothing);
    }
    const parts = { mean: value, min: value, max: value, ema: average.w ? average.l / average.w : null };
    for (const [name, part] of Object.entries(parts)) {
      const column = (this.columns[`${key}.${name}`] ??= name === "min" || name === "max" ? this.#copyOfMean(key) : this.x.map(() => null));
      column.push(part);
    }
  }

  /** The server leaves the band out where every bucket is one step: it is then the curve itself. */
  #copyOfMean(key) {
    return this.x.map((_x, index) => this.columns[`${key}.mean`]?.[index] ?? null);
  }

  /** `[x, columns]` of the loss chart: the steps with the validation's places between them. */
  loss() {
    const columns = { ...this.columns, "eval.loss": this.x.map(() => null) };
    if (!this.evals.length) return [this.x, columns];
    const x = [...new Set([...this.x, ...this.evals.map(([place]) => place)])].sort((a, b) => a - b);
    if (x.length === this.x.length) {
      const at = new Map(this.x.map((place, index) => [place, index]));
      for (const [place, loss] of this.evals) columns["eval.loss"][at.get(place)] = loss;
      return [x, columns];
    }
    return [x, this.#spread(x)];
  }

  #spread(x) {
    const from = new Map(this.x.map((place, index) => [place, index]));
    const evals = new Map(this.evals);
    const spread = { "eval.loss": x.map((place) => evals.get(place) ?? null) };
    for (const name of Object.keys(this.columns).filter((key) => key.startsWith("loss."))) {
      spread[name] = x.map((place) => (from.has(place) ? this.columns[name][from.get(place)] : null));
    }
    return spread;
  }

  /** The memory columns that this device reports. */
  memoryKeys() {
    return MEMORY.filter((key) => `${key}.mean` in this.columns);
  }
}

/** A constant line: its values are written into the columns, as long as x is. */
function constant(curves, name, value) {
  curves.columns[name] = curves.x.map(() => value);
}

/** What each chart draws: lines and the format of their values. `words` holds the labels, `limits` the constants `memory`, `estimate` and `clip`. */
export function definition(metric, curves, words, limits = {}) {
  const band = (key) => (`${key}.min` in curves.columns ? { low: `${key}.min`, high: `${key}.max` } : {});
  const short = (digits) => (value) => number(value, Math.abs(value) >= 100 ? 0 : digits);
  const compact = (value) => (Math.abs(value) >= 0.01 ? String(Number(value.toPrecision(4))) : rate(value));
  const smooth = (key) => [
    { name: `${key}.mean`, label: words.raw, colour: "s1", faint: true, ...band(key) },
    { name: `${key}.ema`, label: words.smoothed, colour: "s1" },
  ];
  switch (metric) {
    case "loss":
      return { lines: [...smooth("loss"), { name: "eval.loss", label: words.validation, colour: "s2", dash: true, points: true }], format: compact };
    case "learning_rate":
      return { lines: [{ name: "learning_rate.mean", label: words.rate, colour: "s1" }], format: rate };
    case "gradient_norm":
      if (!limits.clip) return { lines: smooth("gradient_norm"), format: compact };
      constant(curves, "clip", limits.clip);
      return { lines: [...smooth("gradient_norm"), { name: "clip", label: words.clip, colour: "s3", dash: [2, 4] }], format: compact };
    case "tokens_per_second":
      return { lines: smooth("tokens_per_second"), format: short(1) };
    case "utilisation":
      return { lines: smooth("utilisation"), format: (value) => percent(value, 0) };
    case "celsius":
      return { lines: [{ name: "celsius.mean", label: words.celsius, colour: "s1", ...band("celsius") }], format: (value) => `${number(value, 0)} °C` };
    default:
      return {
        lines: memoryLines(curves, words, limits, band),
        format: bytes,
        formatAxis: axisBytes,
      };
  }
}

/** The parts of the memory, what was estimated, and the limit where that is near enough. */
function memoryLines(curves, words, { memory: limit, estimate }, band) {
  const keys = curves.memoryKeys();
  const lines = keys.map((key, index) => ({ name: `${key}.mean`, label: words[key], colour: `s${index + 1}`, ...band(key) }));
  const most = keys.reduce((top, key) => curves.columns[`${key}.mean`].reduce((high, value) => Math.max(high, value ?? 0), top), 0);
  if (estimate) {
    constant(curves, "estimate", estimate);
    lines.push({ name: "estimate", label: words.estimate, colour: "s5", dash: true, written: "left" });
  }
  if (limit && Math.max(most, estimate) >= limit * NEAR) {
    constant(curves, "limit", limit);
    lines.push({ name: "limit", label: words.limit, colour: "s7", dash: [2, 4], written: "right" });
  }
  return lines;
}
