// What pages leave behind that ended unheard: a crash, a phone that closed a tab, a server that was
// away. A page notes its name in the browser's storage, and holds a lock of that name for as long as
// it lives, alone: whoever shares the lock knows that the page is gone, and may send its clicks and
// give back what it held.

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

  /** The pages that live, this one included; none where the browser cannot tell. */
  async living() {
    if (!this.#shelf) return new Set();
    const { held } = await navigator.locks.query();
    // A lock that is shared belongs to pages that have just heard of an end.
    const alive = held.filter(({ name, mode }) => mode === "exclusive" && this.#isPage(name));
    return new Set(alive.map(({ name }) => this.#pageOf(name)));
  }

  /** Calls `left` with the name of every other page, of later ones too, once that has ended. */
  inherit(own, left) {
    const watch = (key) => {
      if (!this.#isPage(key) || key === this.#prefix + own) return;
      navigator.locks.request(key, { mode: "shared" }, () => {
        this.#shelf.removeItem(key);
        left(this.#pageOf(key));
      });
    };
    Object.keys(this.#shelf ?? {}).forEach(watch);
    window.addEventListener("storage", ({ key, newValue }) => {
      if (this.#shelf && key !== null && newValue !== null) watch(key);
    });
  }

  #isPage(key) {
    return key.startsWith(this.#prefix);
  }

  #pageOf(key) {
    return key.slice(this.#prefix.length);
  }
}
