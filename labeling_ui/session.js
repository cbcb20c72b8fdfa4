// One annotator at work: what is on screen, what a decision does, what undo does. It knows no DOM
// and no database.

import { randomId } from "./api.js";
import { History } from "./history.js";
import { words } from "./language.js";

const UNDO_PATIENCE_MS = 4000;

const within = (promise, ms) =>
  Promise.race([
    promise,
    new Promise((_, reject) => {
      setTimeout(() => reject(new Error("no answer yet")), ms);
    }),
  ]);

/** What a picture of a grid is before anybody has touched it. */
const untouched = ({ state }) =>
  state === "broken" ? { label: "flag", reason: "broken_image" } : { label: "dislike" };

/**
 * A sheet is what is judged at once, one picture or all of a prompt: `{entries, answers}` with an
 * answer `{label, reason?}` for each entry.
 */
const sheetOf = (entries, answers = entries.map(untouched)) => ({ entries, answers });

export class Session {
  #api;
  #queue;
  #outbox;
  #sheet = null;
  #history = new History();
  #shownAt = 0;
  #undoing = false;
  #claimed = false;
  #paused = false;
  #lastActive = performance.now();

  /** Called after any change of state. */
  onChange = () => {};
  /** Called with each judgement: the label, or "submit" for a grid. */
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

  get sheet() {
    return this.#sheet;
  }

  /** True while a click is being taken back: no new one is accepted until that is settled. */
  get undoing() {
    return this.#undoing;
  }

  get canUndo() {
    return this.done > 0 && !this.#undoing && !this.#paused;
  }

  /** What undo would take back, as far as this page knows: "like", "16 pictures", ... or null. */
  get lastLabel() {
    return this.#history.words;
  }

  /** "single" or "grid"; a new one begins with fresh pictures. */
  get layout() {
    return this.#queue.together ? "grid" : "single";
  }

  set layout(layout) {
    if (layout === this.layout) return;
    this.#giveBack();
    this.#queue.together = layout === "grid";
    this.onChange();
    this.advance();
  }

  /**
   * "item", "loading" (nothing to paint yet), "waiting" (nothing to judge), "paused" (nobody was
   * there), "retry" or "requester" (a pause after wrong answers, see the API's QueueView).
   */
  get phase() {
    if (this.#paused) return "paused";
    if (this.#sheet) return "item";
    if (this.#queue.left.pause) return this.#queue.left.pause;
    return this.#claimed && this.#queue.size === 0 ? "waiting" : "loading";
  }

  /** Show the next pictures when none are shown, and keep the supply up. */
  advance() {
    if (this.#paused) return;
    if (!this.#sheet) {
      const entries = this.#queue.take();
      this.#sheet = entries && sheetOf(entries);
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
      if (this.#queue.left.pause && this.leases().length > 0) this.#giveBack();
      this.onChange();
    } catch (error) {
      console.warn(`No new pictures: ${error.message}`);
    }
  }

  /** End a pause after wrong answers. */
  async goOn() {
    try {
      this.#queue.left = (await this.#api.goOn()).queue;
    } catch (error) {
      this.onSay(words.notYet(error.message));
    }
    this.advance();
  }

  /** label: "like" | "dislike" | "skip" | "flag", for everything shown. */
  decide(label, reason = null) {
    this.#judge(this.#sheet?.entries.map(() => ({ label, reason })), label);
  }

  /** Change the answer to one picture of a grid; nothing is sent before `submit`. */
  mark(index, label, reason = null) {
    const entry = this.#sheet?.entries[index];
    if (!entry || this.#undoing) return;
    if (entry.state === "broken" && label !== "skip" && label !== "flag") {
      this.onSay(words.skipOrFlag);
      return;
    }
    this.#sheet = sheetOf(this.#sheet.entries, this.#sheet.answers.with(index, { label, reason }));
    this.onChange();
  }

  /** Send the answers to a grid. */
  submit() {
    this.#judge(this.#sheet?.answers, "submit");
  }

  /** The next pictures show before the server has answered. */
  #judge(answers, name) {
    const entries = this.#sheet?.entries;
    if (!entries || this.#undoing) return;
    const unseen = ({ state }, i) =>
      state === "broken" && !["skip", "flag"].includes(answers[i].label);
    if (entries.some(unseen)) {
      this.onSay(words.skipOrFlag);
      return;
    }
    const each = (performance.now() - this.#shownAt) / entries.length;
    const rows = entries.map(({ item }, i) => ({
      id: randomId(),
      page: this.#api.page,
      assignment: item.assignment,
      token: item.token,
      label: answers[i].label,
      reason: answers[i].reason ?? null,
      rt_ms: Math.round(each),
      at: Date.now() + i / 1000, // keeps their order on disk
    }));
    this.#history.add(entries, rows);
    this.#sheet = null;
    this.onDecided(name);
    this.#outbox.add(rows);
    this.advance();
  }

  /** Retract the last click or grid: here if it never left, otherwise on the server. */
  async undo() {
    if (!this.canUndo) {
      this.onSay(words.nothingToUndo);
      return;
    }
    const last = this.#history.last;
    this.#undoing = true;
    this.onChange();
    try {
      if (last) await this.#retractAll(last);
      else await this.#retractLatest();
    } finally {
      this.#undoing = false;
      this.advance();
    }
  }

  async #retractAll({ entries, rows }) {
    const found = await Promise.allSettled(rows.map((row, i) => this.#retract(row, entries[i])));
    for (const [i, { status, reason }] of found.entries()) {
      if (status === "fulfilled" || reason.kind === "refused") this.#history.forget(rows[i].id);
    }
    const taken = found.flatMap(({ status }, i) => (status === "fulfilled" ? [i] : []));
    if (taken.length === 0) return this.#failUndo(found[0].reason);
    const back = taken.filter((i) => found[i].value !== null);
    this.#showAgain(
      back.map((i) => found[i].value),
      back.map((i) => ({ label: rows[i].label, reason: rows[i].reason })),
    );
  }

  /** A click of an earlier page: the server knows which was the latest. */
  async #retractLatest() {
    try {
      await within(this.#outbox.drained(), UNDO_PATIENCE_MS);
      const { item, label } = await this.#api.undo();
      this.labels -= 1;
      this.#showAgain(item ? [await this.#queue.prepare(item)] : [], [{ label }]);
    } catch (error) {
      this.#failUndo(error);
    }
  }

  /** The entry with a fresh lease; null when its picture has gone to somebody else. */
  async #retract(row, entry) {
    if (await this.#outbox.withdraw(row.id)) return entry;
    await within(this.#outbox.settled(row.id), UNDO_PATIENCE_MS);
    const { item } = await this.#api.undo(row.id);
    this.labels -= 1;
    return item && { ...entry, item };
  }

  #showAgain(entries, answers) {
    if (entries.length === 0) {
      this.onSay(words.takenBackGone);
      return;
    }
    if (this.#sheet) this.#queue.putBack(this.#sheet.entries);
    const single = this.layout === "single";
    if (single) this.#queue.putBack(entries.slice(1));
    this.#sheet = single ? sheetOf(entries.slice(0, 1)) : sheetOf(entries, answers);
    this.#shownAt = performance.now();
    this.onSay(words.takenBack);
  }

  #failUndo(error) {
    if (error.kind === "refused") this.onSay(words.notUndone(error.message));
    else this.onSay(words.undoLater);
  }

  #delivered(rows, { results, labels }) {
    this.labels = labels;
    for (const [index, result] of results.entries()) {
      if (result.status === 200) continue;
      this.#history.forget(rows[index].id);
      this.onSay(words.late);
    }
  }

  #undelivered(error) {
    if (error.kind === "refused") {
      this.onSay(words.refused(error.message));
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
      if (lost.length > 0) this.#lose(new Set(lost));
    } catch (error) {
      console.warn(`Leases were not extended: ${error.message}`);
    }
  }

  #lose(lost) {
    const { entries = [], answers } = this.#sheet ?? {};
    const kept = entries.flatMap(({ item }, i) => (lost.has(item.assignment) ? [] : [i]));
    if (kept.length < entries.length) {
      const left = sheetOf(
        kept.map((i) => entries[i]),
        kept.map((i) => answers[i]),
      );
      this.#sheet = kept.length > 0 ? left : null;
      this.onSay(words.gone);
    }
    this.#queue.drop(lost);
  }

  /** Every lease of this page, the pictures on screen first. */
  leases() {
    const shown = (this.#sheet?.entries ?? []).map(({ item: { assignment, token } }) => ({
      assignment,
      token,
    }));
    return [...shown, ...this.#queue.leases()];
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
    this.#giveBack();
    this.#paused = true;
    this.onChange();
  }

  resume() {
    this.touch();
    if (!this.#paused) return;
    this.#paused = false;
    this.advance();
  }

  #giveBack() {
    this.#queue.releaseAll((this.#sheet?.entries ?? []).map(({ item }) => item));
    this.#sheet = null;
    this.#claimed = false;
  }
}
