// Times in the reader's own zone and words: <time datetime="..." data-as="ago|clock|date">. The server's text stays where scripts do not run.

const LANGUAGE = document.documentElement.lang || "en";
// The reader's own variant of the page's language: an English page shows 22 Nov to one and Nov 22 to another.
const LOCALE = navigator.languages.find((each) => each.split("-")[0] === LANGUAGE.split("-")[0]) ?? LANGUAGE;
const RELATIVE = new Intl.RelativeTimeFormat(LANGUAGE, { numeric: "auto", style: "short" });
// The zone of the reader's profile, else that of the browser.
const timeZone = document.documentElement.dataset.timeZone;
const FULL = new Intl.DateTimeFormat(LOCALE, { dateStyle: "medium", timeStyle: "medium", timeZone });
const CLOCK = new Intl.DateTimeFormat(LOCALE, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23", timeZone });
const DATE = new Intl.DateTimeFormat(LOCALE, { dateStyle: "medium", timeStyle: "short", timeZone });
const STEPS = [
  [60, "second", 1],
  [3600, "minute", 60],
  [86400, "hour", 3600],
  [30 * 86400, "day", 86400],
];

/** "5 min ago", or the date for what is older than a month. */
export function ago(date, now = Date.now()) {
  const seconds = (date.getTime() - now) / 1000;
  for (const [limit, unit, size] of STEPS) {
    if (Math.abs(seconds) < limit) return RELATIVE.format(Math.round(seconds / size), unit);
  }
  return DATE.format(date);
}

/** The time of day of a moment, in the reader's zone. */
export function clock(date) {
  return CLOCK.format(date);
}

/** Writes every <time data-as> under `root`. */
export function render(root = document) {
  for (const element of root.querySelectorAll("time[data-as][datetime]")) {
    const date = new Date(element.dateTime);
    if (Number.isNaN(date.getTime())) continue;
    const text = { ago: () => ago(date), clock: () => CLOCK.format(date), date: () => DATE.format(date) }[element.dataset.as]();
    if (element.textContent !== text) element.textContent = text;
    element.title = FULL.format(date);
  }
}

render();
setInterval(render, 15000);
document.addEventListener("htmx:after:swap", () => render());
