// The form of a new run: only the chosen method's settings are shown, its learning rate is the placeholder, the effective batch is counted.

const form = document.getElementById("run-form");
const byName = (name) => form.elements.namedItem(name);

function showMethod() {
  const chosen = form.querySelector("input[name=method]:checked");
  for (const settings of form.querySelectorAll("[data-method]")) {
    settings.hidden = settings.dataset.method !== chosen?.value;
    settings.open = !settings.hidden;
  }
  if (chosen) byName("training_learning_rate").placeholder = chosen.dataset.learningRate;
}

function countBatch() {
  const product = Number(byName("training_micro_batch").value) * Number(byName("training_gradient_accumulation").value);
  document.getElementById("effective-batch").textContent = Number.isInteger(product) && product > 0 ? String(product) : "–";
}

if (form) {
  form.addEventListener("change", showMethod);
  form.addEventListener("input", countBatch);
  showMethod();
  countBatch();
  document.getElementById("errors")?.focus();
}
