// The mapping of columns: only the fields of the chosen layout are shown. Without this module all are, and the server reads the right ones.
const form = document.getElementById("mapping");

function showLayout() {
  const chosen = form.elements.format.value;
  for (const part of form.querySelectorAll("[data-layout]")) part.hidden = part.dataset.layout !== chosen;
  form.elements.instruction.closest(".field").hidden = !form.querySelector("[data-layout]:not([hidden])[data-instruction]");
}

if (form) {
  form.elements.format.addEventListener("change", showLayout);
  showLayout();
}
