// The list of runs: how many are ticked, all at once, and the keys of the list. Words come from the page.

const STORE = "graft-list-keys";
const table = () => document.getElementById("bulk");
const boxes = () => [...(table()?.querySelectorAll("tbody input[name=run]") ?? [])];
const links = () => [...(table()?.querySelectorAll("tbody th.name > a") ?? [])];

/** Says how many are ticked, and which buttons that allows. */
function count() {
  const bar = table()?.querySelector(".bulk");
  if (!bar) return;
  const all = boxes();
  const ticked = all.filter((box) => box.checked).length;
  const words = ticked === 1 ? bar.dataset.one : bar.dataset.many.replace("{count}", ticked);
  const place = bar.querySelector("[data-count]");
  if (place.textContent !== words) place.textContent = ticked ? words : "";
  for (const button of bar.querySelectorAll("[data-takes-one]")) button.disabled = ticked !== 1;
  const every = table().querySelector("[data-tick-all]");
  every.checked = ticked > 0 && ticked === all.length;
  every.indeterminate = ticked > 0 && ticked < all.length;
}

document.addEventListener("change", (event) => {
  if (event.target.matches("[data-tick-all]")) for (const box of boxes()) box.checked = event.target.checked;
  if (event.target.closest("#bulk")) count();
});
document.addEventListener("htmx:after:swap", count);
// A browser that goes back may have kept ticks.
window.addEventListener("pageshow", count);
count();

// -- keys -------------------------------------------------------------------------------------------------------------

// Single keys can be switched off: who speaks to the computer presses them without wanting to (WCAG 2.1.4).
const toggle = document.querySelector("[data-keys-toggle]");
let keys = localStorage.getItem(STORE) !== "off";

function showKeys() {
  toggle?.setAttribute("aria-pressed", String(keys));
}

toggle?.addEventListener("click", () => {
  keys = !keys;
  localStorage.setItem(STORE, keys ? "on" : "off");
  showKeys();
});
showKeys();

/** The place of the row that has the focus, -1 for none. */
function current() {
  const row = document.activeElement?.closest("#bulk tbody tr");
  return links().findIndex((link) => row?.contains(link));
}

function move(by) {
  const all = links();
  if (!all.length) return;
  const at = current();
  const to = at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, at + by));
  all[to].focus();
  all[to].closest("tr").scrollIntoView({ block: "nearest" });
}

function tick() {
  const box = boxes()[current()];
  if (!box) return false;
  box.checked = !box.checked;
  count();
  return true;
}

const SINGLE = {
  j: () => move(1),
  k: () => move(-1),
  x: tick,
  "/": () => document.getElementById("q")?.focus(),
};
const ARROWS = { ArrowDown: () => move(1), ArrowUp: () => move(-1) };

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  const ticking = event.target.matches("input[name=run]");
  if (event.target.matches("input, select, textarea") && !ticking) return;
  // In the list Enter opens, also from a box, where it would send the form.
  if (event.key === "Enter" && ticking) {
    event.preventDefault();
    links()[current()].click();
    return;
  }
  const act = keys && SINGLE[event.key] ? SINGLE[event.key] : current() >= 0 ? ARROWS[event.key] : undefined;
  if (act && act() !== false) event.preventDefault();
});
