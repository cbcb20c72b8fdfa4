// Leases of pages that ended without a word: a crash, a phone that closed a tab to save memory.
// What a page holds is noted in the browser; the next page gives back what no page holds any more.
// It touches nothing while another page of this browser is open, for that one may still hold it.

const PREFIX = "leases:";
const LOCK = "labeling-page";
const GRACE_MS = 1500; // a page that was reloaded or crashed lets go of its lock a little later

/** The browser's storage, or null where it keeps none: then leases run out by themselves. */
function storage() {
  try {
    return window.localStorage;
  } catch (error) {
    console.warn("This browser keeps no data.", error);
    return null;
  }
}

function taken(shelf) {
  const keys = Object.keys(shelf).filter((key) => key.startsWith(PREFIX));
  const leases = keys.flatMap((key) => JSON.parse(shelf.getItem(key)));
  for (const key of keys) shelf.removeItem(key);
  return leases;
}

/** Runs `work` once no page of this browser is open; [] if one still is after the grace. */
async function alone(work) {
  try {
    return await navigator.locks.request(LOCK, { signal: AbortSignal.timeout(GRACE_MS) }, work);
  } catch (error) {
    if (error.name !== "TimeoutError" && error.name !== "AbortError") throw error;
    return [];
  }
}

/** Leases of ended pages, each handed out once; [] where the browser cannot tell who is open. */
export async function takeLeftovers() {
  const shelf = storage();
  if (!shelf || !navigator.locks) return [];
  const leases = await alone(() => taken(shelf));
  // Shared by all pages and never let go: the browser does that when a page ends.
  navigator.locks.request(LOCK, { mode: "shared" }, () => new Promise(() => {}));
  return leases;
}

/** Notes what this page holds, for the page after it. */
export class LeaseNote {
  #key = PREFIX + crypto.getRandomValues(new Uint32Array(2)).join("-");
  #written = "[]";
  #shelf = storage();

  write(leases) {
    const text = JSON.stringify(leases);
    if (text === this.#written) return;
    this.#written = text;
    this.#shelf?.setItem(this.#key, text);
  }

  clear() {
    this.#shelf?.removeItem(this.#key);
  }
}
