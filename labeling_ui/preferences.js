// What an annotator has chosen for this browser: keys, what a swipe means, the layout, the
// language. Kept in the browser's storage where there is one; a value that makes no sense any more
// is dropped.

import { DEFAULT_BINDINGS } from "./keys.js";

const SHELF = "labeling-preferences";

function stored() {
  try {
    return JSON.parse(window.localStorage.getItem(SHELF) ?? "{}");
  } catch (error) {
    console.warn("Preferences could not be read.", error);
    return {};
  }
}

function sound(bindings) {
  return Object.fromEntries(
    Object.entries(DEFAULT_BINDINGS).map(([action, keys]) => {
      const chosen = bindings?.[action];
      const usable = Array.isArray(chosen) && chosen.every((key) => typeof key === "string");
      return [action, usable ? chosen : keys];
    }),
  );
}

export class Preferences {
  #values = stored();

  /** Action -> keys. */
  get bindings() {
    return sound(this.#values.bindings);
  }

  set bindings(bindings) {
    this.#keep({ bindings });
  }

  /** What a swipe to the right means: "like" or "dislike". */
  get swipeRight() {
    return this.#values.swipeRight === "dislike" ? "dislike" : "like";
  }

  set swipeRight(swipeRight) {
    this.#keep({ swipeRight });
  }

  /** "single" or "grid"; null for what the requester prefers. */
  get layout() {
    return ["single", "grid"].includes(this.#values.layout) ? this.#values.layout : null;
  }

  set layout(layout) {
    this.#keep({ layout });
  }

  /** The language chosen; null for the browser's. */
  get language() {
    return this.#values.language ?? null;
  }

  set language(language) {
    this.#keep({ language });
  }

  #keep(change) {
    this.#values = { ...this.#values, ...change };
    try {
      window.localStorage.setItem(SHELF, JSON.stringify(this.#values));
    } catch (error) {
      console.warn("Preferences last until this page is closed.", error);
    }
  }
}
