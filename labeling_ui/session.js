// One annotator at work: what is on screen, what a decision does, what undo does. It knows no DOM
// and no database; it refuses to judge a picture that is not shown and to undo what the server will
// not undo.

const REMEMBERED = 20;
const UNDO_PATIENCE_MS = 4000;

const LATE = "One click came too late: the picture had gone to somebody else.";

/** 128 random bits; `crypto.randomUUID` is missing on plain-http pages beyond loopback. */
function labelId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const within = (promise, ms) =>
  Promise.race([
    promise,
    new Promise((_, reject) => {
      setTimeout(() => reject(new Error("no answer yet")), ms);
    }),
  ]);

export class Session {
  #api;
  #queue;
  #outbox;
  #current = null;
  #history = [];
  #shownAt = 0;
  #undoing = false;
  #claimed = false;
  #paused = false;
  #lastActive = performance.now();

  /** Called after any change of state. */
  onChange = () => {};
  /** Called with each judgement. */
  onDecided = () => {};
  /** Called with news worth reading out. */
  onSay = () => {};

  constructor({ api, queue, outbox, labels = 0 }) {
    this.#api = api;
    this.#queue = queue;
    this.#outbox = outbox;
    this.labels = labels;
    queue.onChange = () => this.advance();
    outbox.onChange = () => this.onChange();
    outbox.onDelivered = (rows, answer) => this.#delivered(rows, answer);
    outbox.onTrouble = (error) => this.#undelivered(error);
  }

  /** Judgements made: those the server has, and those on their way to it. */
  get done() {
    return this.labels + this.#outbox.size;
  }

  get current() {
    return this.#current;
  }

  /** True while a click is being taken back: no new one is accepted until that is settled. */
  get undoing() {
    return this.#undoing;
  }

  get canUndo() {
    return this.done > 0 && !this.#undoing && !this.#paused;
  }

  /** What undo would take back, as far as this page knows: "like", "dislike", "skip" or null. */
  get lastLabel() {
    return this.#history.at(-1)?.row.label ?? null;
  }

  /** "item", "loading" (nothing to paint yet), "waiting" (nothing to judge), "paused". */
  get phase() {
    if (this.#paused) return "paused";
    if (this.#current) return "item";
    return this.#claimed && this.#queue.size === 0 ? "waiting" : "loading";
  }

  /** Show the next picture when none is shown, and keep the supply up. */
  advance() {
    if (this.#paused) return;
    if (!this.#current) {
      this.#current = this.#queue.take();
      this.#shownAt = performance.now();
    }
    this.onChange();
    this.refill();
  }

  /** Ask for more pictures; a failed claim is retried by the next tick. */
  async refill() {
    if (this.#paused || this.#api.connection === "signed-out") return;
    try {
      await this.#queue.refill();
      this.#claimed = true;
      this.onChange();
    } catch (error) {
      console.warn(`No new pictures: ${error.message}`);
    }
  }

  /** label: "like" | "dislike" | "skip". The next picture shows before the server has answered. */
  decide(label) {
    const entry = this.#current;
    if (!entry || this.#undoing) return;
    if (entry.state === "broken" && label !== "skip") {
      this.onSay("This picture could not be loaded: please skip it.");
      return;
    }
    const row = {
      id: labelId(),
      assignment: entry.item.assignment,
      token: entry.item.token,
      label,
      rt_ms: Math.round(performance.now() - this.#shownAt),
      at: Date.now(),
    };
    this.#history = [...this.#history, { entry, row }].slice(-REMEMBERED);
    this.#current = null;
    this.onDecided(label);
    this.#outbox.add(row);
    this.advance();
  }

  /** Retract the last click: here if it never left, otherwise on the server. */
  async undo() {
    if (!this.canUndo) {
      this.onSay("There is nothing to undo.");
      return;
    }
    const last = this.#history.at(-1);
    this.#undoing = true;
    this.onChange();
    try {
      const entry = await this.#retract(last);
      this.#forget(last?.row.id);
      this.#showAgain(entry);
    } catch (error) {
      this.#failUndo(last, error);
    } finally {
      this.#undoing = false;
      this.advance();
    }
  }

  /** `last` is undefined for clicks of an earlier page: the server knows which was the latest. */
  async #retract(last) {
    if (last && (await this.#outbox.withdraw(last.row.id))) return last.entry;
    const sent = last ? this.#outbox.settled(last.row.id) : this.#outbox.drained();
    await within(sent, UNDO_PATIENCE_MS);
    const { item } = await this.#api.undo(last?.row.id);
    this.labels -= 1;
    if (!item) return null;
    return last ? { ...last.entry, item } : this.#queue.prepare(item);
  }

  #showAgain(entry) {
    if (!entry) {
      this.onSay("Taken back. The picture has gone to somebody else.");
      return;
    }
    if (this.#current) this.#queue.putBack(this.#current);
    this.#current = entry;
    this.#shownAt = performance.now();
    this.onSay("Taken back: please judge this one again.");
  }

  #failUndo(last, error) {
    if (error.kind === "refused") {
      this.#forget(last?.row.id);
      this.onSay(`Not undone: ${error.message}.`);
    } else {
      this.onSay("Undo needs the server, which does not answer yet. Please try again.");
    }
  }

  #forget(id) {
    this.#history = this.#history.filter(({ row }) => row.id !== id);
  }

  #delivered(rows, { results, labels }) {
    this.labels = labels;
    for (const [index, result] of results.entries()) {
      if (result.status === 200) continue;
      this.#forget(rows[index].id);
      this.onSay(LATE);
    }
  }

  #undelivered(error) {
    if (error.kind === "refused") {
      this.onSay(`Clicks are kept, but the server refuses them: ${error.message}`);
    } else {
      console.warn(`${this.#outbox.size} clicks are waiting to be sent: ${error.message}`);
    }
  }

  /** Keep the leases alive; pictures that went to somebody else disappear. */
  async heartbeat() {
    const leases = this.leases();
    if (leases.length === 0 || this.#paused) return;
    try {
      const { lost } = await this.#api.heartbeat(leases);
      if (lost.includes(this.#current?.item.assignment)) {
        this.#current = null;
        this.onSay("That picture has gone to somebody else.");
      }
      if (lost.length > 0) this.#queue.drop(lost);
    } catch (error) {
      console.warn(`Leases were not extended: ${error.message}`);
    }
  }

  /** Every lease of this page, the picture on screen first. */
  leases() {
    const { assignment, token } = this.#current?.item ?? {};
    return [...(assignment ? [{ assignment, token }] : []), ...this.#queue.leases()];
  }

  /** Somebody is there. */
  touch() {
    this.#lastActive = performance.now();
  }

  /** Milliseconds since the last sign of life. */
  get idleMs() {
    return performance.now() - this.#lastActive;
  }

  /** Give every picture back: nobody is looking, and others may be waiting for them. */
  pause() {
    if (this.#paused) return;
    this.#queue.releaseAll(this.#current ? [this.#current.item] : []);
    this.#current = null;
    this.#paused = true;
    this.onChange();
  }

  resume() {
    this.touch();
    if (!this.#paused) return;
    this.#paused = false;
    this.#claimed = false;
    this.advance();
  }
}
