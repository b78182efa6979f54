// Figures as words: the same rules as webapp/core/formats.py, which writes them where the server renders (a browser test compares the two).

const THIN = "\u202f";
const NONE = "–";

/** True for what can be shown as a figure. */
export function isNumber(value) {
  return typeof value === "number" && Number.isFinite(value);
}

/** A number with thin spaces between thousands; `digits` after the point, by default none for whole numbers, else 4 significant. */
export function number(value, digits) {
  if (!isNumber(value)) return NONE;
  const places = digits ?? (Number.isInteger(value) ? 0 : Math.max(0, 3 - Math.floor(Math.log10(Math.abs(value)))));
  const [whole, fraction] = Math.abs(value).toFixed(Math.min(places, 8)).split(".");
  const sign = value < 0 ? "-" : "";
  return sign + whole.replace(/\B(?=(\d{3})+$)/g, THIN) + (fraction ? `.${fraction}` : "");
}

/** A small number as people write learning rates: 2e-4, 0.01. */
export function rate(value) {
  if (!isNumber(value)) return NONE;
  if (value === 0 || Math.abs(value) >= 0.01) return String(Number(value.toPrecision(6)));
  const [mantissa, exponent] = value.toExponential(2).split("e");
  return `${mantissa.replace(/\.?0+$/, "")}e${Number(exponent)}`;
}

const SIZES = ["B", "kB", "MB", "GB", "TB"];

/** A size in decimal units (1 kB = 1000 bytes), three significant digits. */
export function bytes(value) {
  if (!isNumber(value)) return NONE;
  let size = value;
  let unit = 0;
  while (Math.abs(size) >= 999.5 && unit < SIZES.length - 1) {
    size /= 1000;
    unit += 1;
  }
  const digits = unit === 0 || Math.abs(size) >= 99.95 ? 0 : Math.abs(size) >= 9.995 ? 1 : 2;
  return `${size.toFixed(digits)}${THIN}${SIZES[unit]}`;
}

/** Sizes of an axis: one unit for all, and as many digits as tell neighbours apart. */
export function axisBytes(values) {
  const known = values.filter(isNumber);
  if (!known.length) return values.map(() => "");
  const unit = Math.min(SIZES.length - 1, Math.max(0, Math.floor(Math.log10(Math.max(...known.map(Math.abs), 1)) / 3)));
  const scale = 1000 ** unit;
  const gap = known.length > 1 ? Math.abs(known[1] - known[0]) / scale : 1;
  let digits = 0;
  while (unit > 0 && digits < 6 && Math.abs(gap * 10 ** digits - Math.round(gap * 10 ** digits)) > 0.01) digits += 1;
  return values.map((value) => (isNumber(value) ? `${(value / scale).toFixed(digits)}${THIN}${SIZES[unit]}` : ""));
}

const UNITS = [
  [86400, "d", 3600, "h"],
  [3600, "h", 60, "min"],
  [60, "min", 1, "s"],
];

/** Seconds as the two greatest units: 4.2 s, 12 min 41 s. */
export function duration(value) {
  if (!isNumber(value) || value < 0) return NONE;
  if (value < 9.95) return `${value.toFixed(1)}${THIN}s`;
  const whole = Math.round(value);
  for (const [size, unit, small, smallUnit] of UNITS) {
    if (whole < size) continue;
    const rest = Math.floor((whole % size) / small);
    return `${Math.floor(whole / size)}${THIN}${unit}${rest ? ` ${rest}${THIN}${smallUnit}` : ""}`;
  }
  return `${whole}${THIN}s`;
}

/** A share (0 to 1) in per cent. */
export function percent(value, digits = 1) {
  return isNumber(value) ? `${(100 * value).toFixed(digits)}${THIN}%` : NONE;
}
