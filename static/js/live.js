// One WebSocket of a run: frames in order, the cursor of the last event, and an honest word about whether the page is in touch.

const SILENCE_MS = 12000;
const FIRST_DELAY_MS = 500;
const LAST_DELAY_MS = 10000;
const NO_ACCESS = 4404;
const BAD_CURSOR = 4400;

/** `[attempt, seq]` of "1-57", comparable by `later`. */
export function parseCursor(text) {
  const [attempt, seq] = text.split("-").map(Number);
  return [attempt, seq];
}

/** Whether cursor `a` ("1-57") stands after cursor `b`. */
export function later(a, b) {
  const [attemptA, seqA] = parseCursor(a);
  const [attemptB, seqB] = parseCursor(b);
  return attemptA === attemptB ? seqA > seqB : attemptA > attemptB;
}

/**
 * Keeps a socket open from `cursor` on. Handlers: `run(status)`, `events(list)`, `beat(t)` with the server's clock in seconds every few
 * seconds, `touch(state)` with `waiting`, `live` or `lost`,
 * `refused()` when access was withdrawn.
 */
export class LiveSocket {
  #path;
  #handlers;
  #socket = null;
  #failures = 0;
  #silence = 0;
  #retry = 0;
  #state = "";
  #stopped = false;

  constructor(path, cursor, handlers) {
    this.#path = path;
    this.cursor = cursor;
    this.#handlers = handlers;
  }

  start() {
    this.#touch("waiting");
    this.#open();
  }

  stop() {
    this.#stopped = true;
    clearTimeout(this.#silence);
    clearTimeout(this.#retry);
    this.#socket?.close();
  }

  #open() {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}${this.#path}?after=${encodeURIComponent(this.cursor)}`);
    this.#socket = socket;
    this.#listen();
    socket.addEventListener("message", (message) => socket === this.#socket && this.#receive(JSON.parse(message.data)));
    socket.addEventListener("close", (closed) => socket === this.#socket && this.#closed(closed.code));
  }

  #receive(frame) {
    this.#failures = 0;
    this.#touch("live");
    this.#listen();
    if (frame.type === "beat") this.#handlers.beat(frame.t);
    if (frame.type === "run") this.#handlers.run(frame.run);
    if (frame.type === "events") {
      const fresh = frame.events.filter((event) => later(`${event.attempt}-${event.seq}`, this.cursor));
      this.cursor = frame.cursor;
      if (fresh.length) this.#handlers.events(fresh);
    }
  }

  /** Without a frame for a while (the server beats every few seconds) contact is lost, whatever the socket believes. */
  #listen() {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.#closed(0), SILENCE_MS);
  }

  #closed(code) {
    if (this.#stopped) return;
    clearTimeout(this.#silence);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
    if (code === NO_ACCESS) return this.#handlers.refused();
    if (code === BAD_CURSOR) this.cursor = "0-0";
    this.#touch("lost");
    const longest = Math.min(LAST_DELAY_MS, FIRST_DELAY_MS * 2 ** this.#failures);
    this.#failures += 1;
    this.#retry = setTimeout(() => this.#open(), FIRST_DELAY_MS + Math.random() * (longest - FIRST_DELAY_MS));
  }

  #touch(state) {
    if (state === this.#state) return;
    this.#state = state;
    this.#handlers.touch(state);
  }
}
