// Leases of pages that ended without a word: a crash, a phone that closed a tab to save memory.
// A page notes what it holds in the browser's storage, and holds a lock of the note's name for as
// long as it lives: whoever gets that lock knows that the page is gone and may give its leases back.

const PREFIX = "leases:";

/** The browser's storage, or null where it keeps none: then leases run out by themselves. */
function storage() {
  try {
    return navigator.locks ? window.localStorage : null;
  } catch (error) {
    console.warn("This browser keeps no data.", error);
    return null;
  }
}

/** Notes what this page holds, for the page after it. */
export class LeaseNote {
  #key = PREFIX + crypto.getRandomValues(new Uint32Array(2)).join("-");
  #written = "[]";
  #shelf = storage();

  /** Resolves once the page is known to be alive; before that it must note nothing. */
  open() {
    if (!this.#shelf) return Promise.resolve();
    return new Promise((resolve) => {
      navigator.locks.request(this.#key, () => {
        resolve();
        return new Promise(() => {}); // never let go: the browser does that when the page ends
      });
    });
  }

  write(leases) {
    const text = JSON.stringify(leases);
    if (text === this.#written) return;
    this.#written = text;
    this.#shelf?.setItem(this.#key, text);
  }

  clear() {
    this.#shelf?.removeItem(this.#key);
    this.#written = "[]";
  }

  /** Calls `release` with the leases of every other page noted, as soon as that page has ended. */
  inherit(release) {
    for (const key of Object.keys(this.#shelf ?? {})) {
      if (!key.startsWith(PREFIX) || key === this.#key) continue;
      navigator.locks.request(key, () => {
        const leases = JSON.parse(this.#shelf.getItem(key) ?? "[]");
        this.#shelf.removeItem(key);
        if (leases.length > 0) release(leases);
      });
    }
  }
}
