// The pictures this page holds on lease: claimed ahead, decoded ahead, kept alive by heartbeats and
// given back when nobody is looking. A picture is handed out once it can be painted at once.

const AHEAD = 16;
const REFILL_BELOW = 10;
const LOAD_ATTEMPTS = 4;
const GRID = 32;
const GRIDS_AHEAD = 2;

/** Decode a picture so that showing it costs no network and no decoding. */
async function decoded(url) {
  const image = new Image();
  image.decoding = "async";
  image.draggable = false;
  image.src = url;
  await image.decode();
  return image;
}

const groupOf = ({ item }) => `${item.prompt}\n${item.instruction ?? ""}`;
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** An entry is `{item, image, state}` with state "loading" | "ready" | "broken" | "dropped". */
export class LeaseQueue {
  #api;
  #entries = [];
  #claiming = null;
  #round = 0;
  #left = { open: 0, leased_elsewhere: 0, next_return_s: null, for_others: 0, pause: null };

  /** Whether pictures of one prompt are claimed and taken together. */
  together = false;

  onChange = () => {};

  constructor(api) {
    this.#api = api;
  }

  get size() {
    return this.#entries.length;
  }

  /** What the last claim left on the server for this annotator: the API's QueueView. */
  get left() {
    return this.#left;
  }

  set left(left) {
    this.#left = left;
  }

  /** Leases held here, for a heartbeat or a release. */
  leases() {
    return this.#entries.map(({ item }) => ({ assignment: item.assignment, token: item.token }));
  }

  /** What can be shown next, taken out: one picture, or all of a prompt; null while loading. */
  take() {
    if (this.together) return this.#takeGroup();
    const at = this.#entries.findIndex((entry) => entry.state !== "loading");
    return at < 0 ? null : this.#entries.splice(at, 1);
  }

  #takeGroup() {
    for (const key of this.#groups()) {
      const group = this.#entries.filter((entry) => groupOf(entry) === key);
      if (group.some((entry) => entry.state === "loading")) continue;
      this.#entries = this.#entries.filter((entry) => groupOf(entry) !== key);
      return group;
    }
    return null;
  }

  #groups() {
    return new Set(this.#entries.map(groupOf));
  }

  /** Put pictures in front: they were shown already, or their labels were undone. */
  putBack(entries) {
    this.#entries.unshift(...entries);
  }

  /** Claim more when running low. One claim at a time; rejects with the claim's ApiError. */
  refill() {
    const enough = this.together
      ? this.#groups().size >= GRIDS_AHEAD
      : this.#entries.length >= REFILL_BELOW;
    if (enough) return Promise.resolve();
    this.#claiming ??= this.#claim().finally(() => {
      this.#claiming = null;
    });
    return this.#claiming;
  }

  async #claim() {
    const round = this.#round;
    const n = this.together ? GRID : AHEAD - this.#entries.length;
    const { items, queue } = await this.#api.claim(n, this.together);
    if (round !== this.#round) {
      this.#api.release(items); // everything was given back while this claim was on its way
      return;
    }
    this.#left = queue;
    for (const item of items) {
      const entry = { item, image: null, state: "loading" };
      this.#entries.push(entry);
      this.#load(entry);
    }
    this.onChange();
  }

  /** An entry outside the queue for a leased item, once its picture can be painted. */
  async prepare(item) {
    return this.#load({ item, image: null, state: "loading" });
  }

  async #load(entry) {
    let attempts = 0;
    while (entry.state === "loading") {
      try {
        entry.image = await decoded(entry.item.image_url);
        if (entry.state === "loading") entry.state = "ready";
      } catch {
        // A lost connection says nothing about the picture: only count attempts with a server.
        if (this.#api.connection === "up") attempts += 1;
        if (attempts === LOAD_ATTEMPTS) entry.state = "broken";
        else await pause(300 * Math.max(attempts, 1));
      }
    }
    this.onChange();
    return entry;
  }

  /** Forget leases the server no longer grants. */
  drop(assignments) {
    const lost = new Set(assignments);
    this.#remove((item) => lost.has(item.assignment));
    this.onChange();
  }

  /** Give every lease back, so that others need not wait for this page. */
  releaseAll(also = []) {
    this.#api.release([...this.leases(), ...also]);
    this.#remove(() => true);
    this.#round += 1;
  }

  #remove(gone) {
    for (const entry of this.#entries.filter(({ item }) => gone(item))) entry.state = "dropped";
    this.#entries = this.#entries.filter(({ state }) => state !== "dropped");
  }
}
