// The form that combines adapters: those that do not go with the first chosen one are greyed out with their reason, so are combinations that
// do not fit, and only the settings of the chosen combination are shown.

const form = document.getElementById("compose-form");

function say(choice, input, reason) {
  choice.classList.toggle("unfit", Boolean(reason));
  // One that is chosen already stays so: the server says again why it does not fit.
  input.disabled = Boolean(reason) && !input.checked;
  const why = choice.querySelector("p.why");
  why.hidden = !reason;
  why.textContent = reason ? form.dataset.unfit.replace("{reason}", reason) : "";
}

function update() {
  const rules = JSON.parse(document.getElementById("compose-rules").textContent);
  const candidates = [...form.querySelectorAll("[data-candidate]")].map((choice) => [choice, choice.querySelector("[name=adapters]")]);
  const first = candidates.find(([choice, input]) => input.checked && !choice.dataset.alone)?.[0].dataset.key;
  for (const [choice, input] of candidates) {
    say(choice, input, choice.dataset.alone || (rules.apart[first]?.[choice.dataset.key] ?? ""));
  }
  for (const choice of form.querySelectorAll("[data-combination]")) {
    say(choice, choice.querySelector("input"), rules.misfits[first]?.[choice.dataset.combination] ?? "");
  }
  const chosen = form.querySelector("input[name=combination]:checked")?.value;
  for (const setting of form.querySelectorAll("[data-setting]")) {
    setting.hidden = !(rules.uses[chosen] ?? []).includes(setting.dataset.setting);
  }
}

if (form) {
  form.addEventListener("change", update);
  update();
  document.getElementById("errors")?.focus();
}
