// <file-upload>: sends the chosen file in parts (tus) and puts the upload's id into the hidden field beside it.
// An upload that broke off, also by a reload, goes on when the same file is chosen again. Without this module the form sends the file.
const PART_BYTES = 8 * 1024 * 1024;
const RETRY_DELAYS_MS = [0, 1000, 3000, 5000, 10000, 20000];

class FileUpload extends HTMLElement {
  connectedCallback() {
    this.form = this.closest("form");
    this.chooser = this.querySelector("input[type=file]");
    this.idField = this.querySelector("input[type=hidden]");
    this.fieldName = this.chooser.name;
    this.bar = this.querySelector(".progress");
    this.chooser.addEventListener("change", () => this.start(this.chooser.files[0]));
    if (this.idField.value) this.show(this.dataset.wordsDone, 1, 1);
  }

  get busy() {
    return Boolean(this.upload) && !this.idField.value;
  }

  async start(file) {
    this.upload?.abort();
    this.upload = null;
    this.idField.value = "";
    this.chooser.name = this.fieldName;
    this.bar.hidden = true;
    if (!file) return;
    if (file.size > Number(this.dataset.limit)) {
      this.chooser.value = "";
      this.show(this.dataset.wordsTooLarge, 0, 1);
      return;
    }
    // An empty file needs no upload: the form's own answer explains it.
    if (file.size === 0) return;
    const upload = new window.tus.Upload(file, this.options(file));
    this.upload = upload;
    const [previous] = await upload.findPreviousUploads();
    if (previous) upload.resumeFromPreviousUpload(previous);
    if (this.upload === upload) upload.start();
  }

  options(file) {
    return {
      endpoint: new URL(this.form.dataset.uploads, location.href).href,
      chunkSize: PART_BYTES,
      retryDelays: RETRY_DELAYS_MS,
      removeFingerprintOnSuccess: true,
      metadata: { filename: file.name },
      headers: { "X-CSRFToken": this.form.elements.csrfmiddlewaretoken.value },
      onProgress: (sent, total) => this.show(this.dataset.wordsUploading, sent, total),
      onShouldRetry: (error) => {
        const status = error.originalResponse?.getStatus() ?? 0;
        const again = status === 0 || status >= 500 || status === 409 || status === 423 || status === 460;
        if (again) this.say(this.dataset.wordsWaiting);
        return again;
      },
      onError: (error) => this.fail(error),
      onSuccess: () => this.finish(file),
    };
  }

  finish(file) {
    this.idField.value = this.upload.url.split("/").pop();
    // The bytes are there: the form must not send them again.
    this.chooser.removeAttribute("name");
    this.show(this.dataset.wordsDone, file.size, file.size);
    this.dispatchEvent(new CustomEvent("upload-settled", { bubbles: true }));
  }

  fail(error) {
    const body = error.originalResponse?.getBody();
    this.upload = null;
    this.chooser.value = "";
    this.say(body && body.length < 400 && !body.startsWith("<") ? body : this.dataset.wordsFailed);
    this.dispatchEvent(new CustomEvent("upload-settled", { bubbles: true }));
  }

  show(words, done, total) {
    this.bar.hidden = false;
    this.say(words);
    const bar = this.bar.querySelector("progress");
    bar.max = total;
    bar.value = done;
    this.bar.querySelector("[data-part=figure]").textContent = `${Math.floor((100 * done) / total)}\u2009%`;
  }

  say(words) {
    this.bar.hidden = false;
    const place = this.bar.querySelector("[data-part=words]");
    if (place.textContent !== words) place.textContent = words;
  }
}

customElements.define("file-upload", FileUpload);

// A form that is sent while a file is on its way waits for it.
for (const form of document.querySelectorAll("form[data-uploads]")) {
  let waiting = false;
  const busy = () => [...form.querySelectorAll("file-upload")].some((part) => part.busy);
  form.addEventListener("submit", (event) => {
    if (!busy()) return;
    event.preventDefault();
    waiting = true;
  });
  form.addEventListener("upload-settled", () => {
    if (!waiting || busy()) return;
    waiting = false;
    if ([...form.querySelectorAll("file-upload")].every((part) => part.idField.value || !part.bar.checkVisibility())) form.requestSubmit();
  });
}
