// <several-uploads>: one chooser for several files; each becomes a <file-upload> of its own, made of the template, which sends it in parts.
// Without this module the form sends the files itself.
class SeveralUploads extends HTMLElement {
  connectedCallback() {
    this.chooser = this.querySelector("input[type=file]");
    this.template = this.querySelector("template");
    this.list = this.querySelector("[data-part=uploads]");
    // What is sent in parts must not be sent again with the form.
    this.chooser.removeAttribute("name");
    this.chooser.addEventListener("change", () => this.start([...this.chooser.files]));
  }

  start(files) {
    for (const part of this.list.children) part.upload?.abort();
    this.list.replaceChildren(...files.map((file) => this.part(file)));
    for (const part of this.list.children) part.chooser.dispatchEvent(new Event("change"));
  }

  part(file) {
    const part = document.importNode(this.template.content, true).firstElementChild;
    part.querySelector("[data-part=name]").textContent = file.name;
    const held = new DataTransfer();
    held.items.add(file);
    part.querySelector("input[type=file]").files = held.files;
    return part;
  }
}

customElements.define("several-uploads", SeveralUploads);
