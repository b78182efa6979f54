// The mapping of columns: only the fields of the chosen layout are shown. Without this module all are, and the server reads the right ones.
const form = document.getElementById("mapping");

function showLayout() {
  const chosen = form.elements.format.value;
  for (const part of form.querySelectorAll("[data-layout]")) part.hidden = part.dataset.layout !== chosen;
  const instruction = form.elements.instruction.closest(".field");
  instruction.hidden = chosen === "text";
}

if (form) {
  form.elements.format.addEventListener("change", showLayout);
  showLayout();
}
