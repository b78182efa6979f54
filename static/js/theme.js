// Loaded before the first paint, as a classic script: marks that scripts run, and applies the reader's choice of colours.
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  try {
    const choice = localStorage.getItem("graft-theme");
    if (choice === "light" || choice === "dark") root.dataset.theme = choice;
  } catch {
    // Storage may be forbidden; the system's colours then stay.
  }
})();
