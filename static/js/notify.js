// Notifications of the browser when a run ends, while a page of the site is open. The reader switches them on for this browser; what is
// said, and of which runs, the server decides (`notices:feed`, whose address stands in <meta name="graft-feed">).

const KEY = "graft-notify";
const EVERY_MS = 10000;

function wanted() {
  try {
    return localStorage.getItem(KEY) === "on";
  } catch {
    return false;
  }
}

function keep(on) {
  try {
    if (on) localStorage.setItem(KEY, "on");
    else localStorage.removeItem(KEY);
  } catch {
    // Storage may be forbidden: then nothing is kept, and the switch says off.
  }
}

/** `on`, `off`, `denied` (by the browser) or `absent` (it has none, or not on this address). */
export function state() {
  if (!("Notification" in window) || !window.isSecureContext) return "absent";
  if (Notification.permission === "denied") return "denied";
  return wanted() && Notification.permission === "granted" ? "on" : "off";
}

function show(ending) {
  // One of a run's end, however many pages are open: a second with the same tag takes the place of the first.
  const shown = new Notification(ending.title, { body: ending.body, tag: ending.id });
  shown.addEventListener("click", () => {
    window.focus();
    location.assign(ending.url);
  });
}

class Feed {
  #address;
  #after = "";
  #timer = 0;

  constructor(address) {
    this.#address = address;
  }

  start() {
    if (!this.#timer && state() === "on") this.#ask();
  }

  async #ask() {
    this.#timer = 0;
    if (state() !== "on") {
      this.#after = "";
      return;
    }
    try {
      const answer = await fetch(`${this.#address}?after=${encodeURIComponent(this.#after)}`, { headers: { accept: "application/json" } });
      // Signed out, or no member any more: nothing more is to be heard on this page.
      if (answer.redirected || answer.status === 403 || answer.status === 404) return;
      if (answer.ok) {
        const { now, endings } = await answer.json();
        this.#after = now;
        endings.forEach(show);
      }
    } catch {
      // The site is away for a moment: the next question asks from where this one did.
    }
    this.#timer = setTimeout(() => this.#ask(), EVERY_MS);
  }
}

const address = document.querySelector('meta[name="graft-feed"]')?.content;
const feed = address ? new Feed(address) : null;
feed?.start();

/** The switch on the page of notifications: two buttons, of which one is shown, and a line that says how things are. */
class NotifySwitch extends HTMLElement {
  connectedCallback() {
    this.querySelector("[data-on]").addEventListener("click", () => this.#allow());
    this.querySelector("[data-off]").addEventListener("click", () => this.#choose(false));
    this.#render();
  }

  async #allow() {
    await Notification.requestPermission();
    this.#choose(true);
  }

  #choose(on) {
    keep(on);
    feed?.start();
    this.#render();
    this.querySelector("button:not([hidden])")?.focus();
  }

  #render() {
    const now = state();
    const words = this.querySelector("[data-words]").dataset;
    this.querySelector("[data-status]").textContent = words[`is${now[0].toUpperCase()}${now.slice(1)}`];
    this.querySelector("[data-on]").hidden = now !== "off";
    this.querySelector("[data-off]").hidden = now !== "on";
  }
}

customElements.define("notify-switch", NotifySwitch);
