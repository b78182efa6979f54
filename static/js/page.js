// What every page does: theme toggle, menus that close, copy buttons.
import "./notify.js";
import "./times.js";

const ORDER = ["system", "light", "dark"];

function themeOf() {
  return document.documentElement.dataset.theme ?? "system";
}

function showTheme(button) {
  const theme = themeOf();
  for (const part of button.querySelectorAll("[data-theme-icon]")) part.hidden = part.dataset.themeIcon !== theme;
}

function setTheme(theme) {
  const root = document.documentElement;
  if (theme === "system") delete root.dataset.theme;
  else root.dataset.theme = theme;
  try {
    localStorage.setItem("graft-theme", theme);
  } catch {
    // Storage may be forbidden; the choice then lasts for this page.
  }
  document.dispatchEvent(new CustomEvent("graft:theme"));
}

for (const button of document.querySelectorAll("[data-theme-toggle]")) {
  showTheme(button);
  button.addEventListener("click", () => {
    setTheme(ORDER[(ORDER.indexOf(themeOf()) + 1) % ORDER.length]);
    showTheme(button);
  });
}

function closeMenus(except) {
  for (const menu of document.querySelectorAll("details.menu[open]")) if (menu !== except) menu.open = false;
}

document.addEventListener("click", (event) => closeMenus(event.target.closest("details.menu")));
document.addEventListener("keydown", (event) => {
  const menu = event.key === "Escape" && document.querySelector("details.menu[open]");
  if (!menu) return;
  menu.open = false;
  menu.querySelector("summary").focus();
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent.trim());
  const words = button.querySelector("[data-words]");
  const before = words.textContent;
  words.textContent = button.dataset.copied;
  setTimeout(() => (words.textContent = before), 2000);
});
