// The latest judgements of this page, for undo: which pictures they were about, and which clicks.

import { words } from "./language.js";

const REMEMBERED = 20;

/** Holds `{entries, rows}` of what was judged at once, the latest last. */
export class History {
  #past = [];

  /** The latest judgement; undefined when none is remembered. */
  get last() {
    return this.#past.at(-1);
  }

  /** What the latest judgement was, in words: "like", "16 pictures"; null without one. */
  get words() {
    const rows = this.last?.rows ?? [];
    if (rows.length > 1) return words.pictures(rows.length);
    return rows.length === 1 ? words.what(rows[0].label) : null;
  }

  add(entries, rows) {
    this.#past = [...this.#past, { entries, rows }].slice(-REMEMBERED);
  }

  /** A click that was taken back, or that the server did not count. */
  forget(id) {
    this.#past = this.#past.flatMap(({ entries, rows }) => {
      const kept = rows.flatMap((row, i) => (row.id === id ? [] : [i]));
      if (kept.length === 0) return [];
      return [{ entries: kept.map((i) => entries[i]), rows: kept.map((i) => rows[i]) }];
    });
  }
}
