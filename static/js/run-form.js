// The form of a new run: only the chosen method's settings are shown, its learning rate is the placeholder, methods that do not fit the base
// model or the task, and tasks that base model or dataset do not serve, are greyed out with their reason, and so is recomputing where the
// method does not bear it; a word finds a method, the effective batch is counted.

const form = document.getElementById("run-form");
const byName = (name) => form.elements.namedItem(name);
const methods = document.getElementById("methods");

function showMethod() {
  const chosen = form.querySelector("input[name=method]:checked");
  for (const settings of form.querySelectorAll("[data-method]")) {
    settings.hidden = settings.dataset.method !== chosen?.value;
    settings.open = !settings.hidden;
  }
  document.getElementById("builds-on").hidden = !form.querySelector(`[data-builds-on="${chosen?.value}"]`);
  if (chosen) byName("training_learning_rate").placeholder = chosen.dataset.learningRate;
  showCheckpointing(chosen);
}

function showCheckpointing(chosen) {
  const box = byName("training_gradient_checkpointing");
  const help = document.getElementById(`${box.id}_helptext`);
  help.dataset.usual ??= help.textContent;
  box.disabled = chosen !== null && "noCheckpointing" in chosen.dataset;
  help.textContent = box.disabled ? methods.dataset.noCheckpointing : help.dataset.usual;
}

function greyOut(name, reasons) {
  for (const radio of form.querySelectorAll(`input[name=${name}]`)) {
    const reason = reasons[radio.value];
    const why = document.getElementById(radio.getAttribute("aria-describedby"));
    radio.closest("[data-choice]").classList.toggle("unfit", Boolean(reason));
    // One that is chosen already stays so: the server says again why it does not fit.
    radio.disabled = Boolean(reason) && !radio.checked;
    why.hidden = !reason;
    why.textContent = reason ? methods.dataset.unfit.replace("{reason}", reason) : "";
  }
}

function showTasks() {
  const known = JSON.parse(document.getElementById("task-obstacles").textContent);
  const [base, data] = ["base_model", "dataset_version"].map((name) => known[name][byName(name).value] ?? {});
  const reasons = Object.fromEntries([...form.querySelectorAll("input[name=task]")].map(({ value }) => [value, base[value] || data[value]]));
  const fitting = form.querySelector(Object.keys(reasons).filter((task) => !reasons[task]).map((task) => `#id_task_${task}`).join() || "none");
  if (fitting && reasons[byName("task").value]) fitting.checked = true;
  greyOut("task", reasons);
}

function showObstacles() {
  const known = JSON.parse(document.getElementById("obstacles").textContent);
  greyOut("method", known[byName("base_model").value]?.[byName("task").value] ?? {});
}

function findMethods() {
  const wanted = document.getElementById("method-filter").value.trim().toLowerCase();
  let found = 0;
  for (const choice of methods.querySelectorAll("[data-choice]")) {
    choice.hidden = !choice.textContent.toLowerCase().includes(wanted) && !choice.querySelector(":checked");
    found += choice.hidden ? 0 : 1;
  }
  for (const family of methods.querySelectorAll(".family")) {
    family.hidden = !family.querySelector("[data-choice]:not([hidden])");
    if (wanted && !family.hidden) family.open = true;
  }
  document.getElementById("method-count").textContent = wanted ? String(found) : "";
}

function countBatch() {
  const product = Number(byName("training_micro_batch").value) * Number(byName("training_gradient_accumulation").value);
  document.getElementById("effective-batch").textContent = Number.isInteger(product) && product > 0 ? String(product) : "–";
}

if (form) {
  form.addEventListener("change", showMethod);
  form.addEventListener("input", countBatch);
  for (const name of ["base_model", "dataset_version"]) byName(name).addEventListener("change", showTasks);
  form.addEventListener("change", showObstacles);
  const filter = document.getElementById("method-filter");
  filter.addEventListener("input", findMethods);
  filter.addEventListener("keydown", (event) => {
    if (event.key === "Enter") event.preventDefault(); // which would launch the run
  });
  showMethod();
  showTasks();
  showObstacles();
  countBatch();
  document.getElementById("errors")?.focus();
}
