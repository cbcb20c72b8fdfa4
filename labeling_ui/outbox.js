// Clicks on their way to the server. A click is kept in the browser's database from the moment it
// is made until the server has confirmed it, and is resent as often as needed: the server counts a
// `client_label_id` once. The outbox never throws a click away on its own account.

const FIRST_RETRY_MS = 300;
const LAST_RETRY_MS = 5000;
const BATCH = 64;

/** Key-value rows in IndexedDB, one database per annotator. */
class DiskStore {
  durable = true;

  constructor(database) {
    this.database = database;
  }

  static open(name) {
    return new Promise((resolve, reject) => {
      const request = indexedDB.open(name, 1);
      request.onupgradeneeded = () => request.result.createObjectStore("labels", { keyPath: "id" });
      request.onsuccess = () => resolve(new DiskStore(request.result));
      request.onerror = () => reject(request.error);
    });
  }

  #run(mode, work) {
    return new Promise((resolve, reject) => {
      const transaction = this.database.transaction("labels", mode);
      const request = work(transaction.objectStore("labels"));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onerror = () => reject(transaction.error);
      transaction.onabort = () => reject(transaction.error);
    });
  }

  /** All of them or none. */
  put(rows) {
    return this.#run("readwrite", (labels) => rows.map((row) => labels.put(row)).at(-1));
  }

  delete(id) {
    return this.#run("readwrite", (labels) => labels.delete(id));
  }

  all() {
    return this.#run("readonly", (labels) => labels.getAll());
  }
}

/** Stands in where a browser refuses IndexedDB (some private windows): clicks live in the page. */
class PageStore {
  durable = false;

  async put() {}
  async delete() {}
  async all() {
    return [];
  }
}

/** The store for one annotator; it is not `durable` when clicks would not outlive a reload. */
export async function openStore(annotator) {
  try {
    return await DiskStore.open(`labels:${annotator}`);
  } catch (error) {
    console.warn("IndexedDB is not available; clicks are kept in this page only.", error);
    return new PageStore();
  }
}

/**
 * A label row is `{id, page, assignment, token, label, reason, rt_ms, at}`; `id` is the
 * `client_label_id`, `page` where the click was made.
 * `send(rows)` delivers rows and resolves with the server's answer, or throws when it is uncertain
 * that the server has them; `onDelivered(rows, answer)` hears of each delivery,
 * `onTrouble(error)` of each failure.
 */
export class Outbox {
  #store;
  #send;
  #rows = new Map();
  #attempted = new Set();
  #waiters = new Map();
  #running = false;
  #durable;
  #retryMs = FIRST_RETRY_MS;
  #wake = () => {};

  onChange = () => {};
  onDelivered = () => {};
  onTrouble = () => {};

  constructor(store, send) {
    this.#store = store;
    this.#durable = store.durable;
    this.#send = send;
  }

  /**
   * Take up what ended pages left behind; those rows may have been sent already. A page of the
   * `living` sends its own: it may still take back what it has not sent.
   */
  async open(living) {
    const rows = await this.#store.all();
    rows.sort((a, b) => a.at - b.at);
    for (const row of rows) {
      if (living.has(row.page) || this.#rows.has(row.id)) continue;
      this.#rows.set(row.id, row);
      this.#attempted.add(row.id);
    }
    this.onChange();
    this.#run();
  }

  get size() {
    return this.#rows.size;
  }

  /** Whether the clicks kept here would outlive a reload: false for good once one was not saved. */
  get durable() {
    return this.#durable;
  }

  /** Assignments whose click is still on its way. */
  assignments() {
    return new Set([...this.#rows.values()].map((row) => row.assignment));
  }

  /** Keep clicks and start sending them. Returns at once; the write to disk runs beside it. */
  add(rows) {
    for (const row of rows) this.#rows.set(row.id, row);
    this.#save(rows);
    this.onChange();
    this.#run();
  }

  /** Everything not yet confirmed, for a last attempt on leaving; it stays in the outbox. */
  leaving() {
    const rows = [...this.#rows.values()];
    for (const row of rows) this.#attempted.add(row.id);
    return rows;
  }

  /**
   * Take a click back before it was ever sent: true. False when the server may know it already
   * (then only the server can undo it, after `settled`).
   */
  async withdraw(id) {
    if (!this.#rows.has(id) || this.#attempted.has(id)) return false;
    await this.#drop([id]);
    return true;
  }

  /** Wait until the server has answered for this click; at once when it already has. */
  settled(id) {
    if (!this.#rows.has(id)) return Promise.resolve();
    return new Promise((resolve) => {
      this.#waiters.set(id, [...(this.#waiters.get(id) ?? []), resolve]);
    });
  }

  /** Wait until the server has answered for every click made so far. */
  async drained() {
    await Promise.all([...this.#rows.keys()].map((id) => this.settled(id)));
  }

  /** Try again now instead of at the end of the current pause. */
  nudge() {
    this.#retryMs = FIRST_RETRY_MS;
    this.#wake();
    this.#run();
  }

  async #save(rows) {
    try {
      await this.#store.put(rows);
    } catch (error) {
      console.warn("A click could not be saved; it is kept in this page only.", error);
      this.#durable = false;
      this.onChange();
    }
  }

  async #drop(ids, notify = () => {}) {
    for (const id of ids) {
      this.#rows.delete(id);
      this.#attempted.delete(id);
    }
    notify();
    this.onChange();
    // A row that stays on disk is only sent once more by the next page, and counted once.
    const deletions = ids.map((id) => this.#store.delete(id));
    await Promise.all(deletions).catch((error) => console.warn("A sent click stays.", error));
    for (const id of ids) {
      for (const resolve of this.#waiters.get(id) ?? []) resolve();
      this.#waiters.delete(id);
    }
  }

  async #run() {
    if (this.#running) return;
    this.#running = true;
    while (this.#rows.size > 0) {
      const rows = this.#nextBatch();
      for (const row of rows) this.#attempted.add(row.id);
      try {
        await this.#deliver(rows);
        this.#retryMs = FIRST_RETRY_MS;
      } catch (error) {
        this.onTrouble(error);
        await this.#pause();
      }
    }
    this.#running = false;
  }

  /** Rows that may have arrived go first and alone: later ones can still be withdrawn meanwhile. */
  #nextBatch() {
    const tried = [...this.#rows.values()].filter((row) => this.#attempted.has(row.id));
    return (tried.length > 0 ? tried : [...this.#rows.values()]).slice(0, BATCH);
  }

  async #deliver(rows) {
    const answer = await this.#send(rows);
    const ids = rows.map((row) => row.id);
    await this.#drop(ids, () => this.onDelivered(rows, answer));
  }

  async #pause() {
    const wait = this.#retryMs * (0.5 + Math.random());
    this.#retryMs = Math.min(this.#retryMs * 2, LAST_RETRY_MS);
    await new Promise((resolve) => {
      this.#wake = resolve;
      setTimeout(resolve, wait);
    });
  }
}
