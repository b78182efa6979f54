// How many parameters the run would train, told anew by the server while the form of a new run is filled in.

const WAIT_MS = 300;
const form = document.getElementById("run-form");
const told = document.getElementById("trained");
let timer = 0;
let asked = null;

async function ask() {
  asked?.abort();
  asked = new AbortController();
  try {
    const answer = await fetch(told.dataset.url, { method: "POST", body: new FormData(form), signal: asked.signal });
    if (!answer.ok) return;
    const { words, cards } = await answer.json();
    told.textContent = words;
    for (const card of form.querySelectorAll("[data-trained]")) card.textContent = cards[card.dataset.trained] ?? "";
  } catch (fault) {
    if (fault.name !== "AbortError") told.textContent = ""; // rather nothing than what is no longer true
  }
}

if (form && told) {
  for (const kind of ["input", "change"]) {
    form.addEventListener(kind, () => {
      clearTimeout(timer);
      timer = setTimeout(ask, WAIT_MS);
    });
  }
}
