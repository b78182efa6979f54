// The form of an experiment: only what the chosen kind asks for is shown, grid or list. Without scripts both are there, and the choice counts.
const form = document.getElementById("experiment-form");

function showKind() {
  const chosen = form.querySelector("input[name=kind]:checked")?.value;
  for (const part of form.querySelectorAll("[data-kind]")) part.hidden = part.dataset.kind !== chosen;
}

if (form) {
  form.addEventListener("change", showKind);
  showKind();
  const shown = document.getElementById("errors") ?? document.getElementById("preview-title");
  shown?.focus();
}
