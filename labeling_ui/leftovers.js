// Leases of pages that ended unheard: a crash, a phone that closed a tab, a server that was away.
// A page notes its name in the browser's storage, and holds a lock of that name for as long as it
// lives: whoever gets the lock knows that the page is gone and may give back what it held.

const PREFIX = "page:";

/** The browser's storage, or null where it keeps none: then leases run out by themselves. */
function storage() {
  try {
    return navigator.locks ? window.localStorage : null;
  } catch (error) {
    console.warn("This browser keeps no data.", error);
    return null;
  }
}

/** Notes that this annotator's page is alive, for the page after it. */
export class PageNote {
  #prefix;
  #shelf = storage();

  constructor(annotator) {
    this.#prefix = `${PREFIX}${annotator}:`;
  }

  /** Resolves once the page is known to be alive; before that it must claim nothing. */
  open(page) {
    if (!this.#shelf) return Promise.resolve();
    const key = this.#prefix + page;
    return new Promise((resolve) => {
      navigator.locks.request(key, () => {
        this.#shelf.setItem(key, "");
        resolve();
        return new Promise(() => {}); // never let go: the browser does that when the page ends
      });
    });
  }

  /** Calls `left` with the name of every other page noted, as soon as that page has ended. */
  inherit(own, left) {
    for (const key of Object.keys(this.#shelf ?? {})) {
      if (!key.startsWith(this.#prefix) || key === this.#prefix + own) continue;
      navigator.locks.request(key, () => {
        this.#shelf.removeItem(key);
        left(key.slice(this.#prefix.length));
      });
    }
  }
}
