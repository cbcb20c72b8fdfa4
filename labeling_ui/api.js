// The server as the page sees it: one method per request, one error class with a kind that says
// what to do. It keeps no state but the connection's, and decides nothing about labels.

const TIMEOUT_MS = 15000;

/**
 * kind: "unreachable" (no answer), "busy" (429 or 5xx: try again later), "signed-out" (401, 403),
 * "refused" (any other 4xx: asking again would not help).
 */
export class ApiError extends Error {
  constructor(kind, message, { status = 0, code = "" } = {}) {
    super(message);
    this.name = "ApiError";
    this.kind = kind;
    this.status = status;
    this.code = code;
  }

  get retryable() {
    return this.kind === "unreachable" || this.kind === "busy";
  }
}

function kindOf(status) {
  if (status === 401 || status === 403) return "signed-out";
  if (status === 408 || status === 429 || status >= 500) return "busy";
  return "refused";
}

async function problemOf(response) {
  const problem = await response.json().catch(() => ({}));
  const text = problem.detail ?? problem.title ?? response.statusText;
  return new ApiError(kindOf(response.status), text, {
    status: response.status,
    code: problem.code ?? "",
  });
}

/** 128 random bits; `crypto.randomUUID` is missing on plain-http pages beyond loopback. */
export function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * Labeling requests of one annotator; `onConnection` hears "up", "down" or "signed-out". `page`
 * names this page to the server, `annotator` for whom it labels once that is known.
 */
export class LabelApi {
  #connection = "up";

  page = randomId();
  annotator = null;

  onConnection = () => {};

  get connection() {
    return this.#connection;
  }

  /** Who is clicking and how far they are: `{name, labels, queue, ...}`. */
  me() {
    return this.#request("GET", "label/me");
  }

  /** Lease up to n pictures, `together` of one prompt: `{items, queue: QueueView}`. */
  claim(n, together = false) {
    return this.#request("POST", this.#mine("claim"), { n, together, page: this.page });
  }

  /** Deliver label rows: `{results, labels}`, one result per row, in order. */
  submit(rows) {
    return this.#request("POST", this.#mine("submit"), rows);
  }

  /** Retract a label, by default the latest; `item` is the picture with a fresh lease, or null. */
  undo(clientLabelId = null) {
    const ask = { client_label_id: clientLabelId, page: this.page };
    return this.#request("POST", this.#mine("undo"), ask);
  }

  /** Extend leases: `{live, lost}`. */
  heartbeat(leases) {
    return this.#request("POST", this.#mine("heartbeat"), { leases });
  }

  /** Go on after a pause that wrong answers to known pictures have led to. */
  goOn() {
    return this.#request("POST", this.#mine("continue"));
  }

  /** Give leases back; works while the page is being closed. */
  release(items) {
    const leases = items.map(({ assignment, token }) => ({ assignment, token }));
    return leases.length === 0 || this.#leaveBehind(this.#mine("release"), { leases });
  }

  /** A page has ended, this one or an earlier one: all it holds or still claims is given back. */
  leave(page, keep) {
    const ended = { page, annotator: this.annotator, keep: [...keep] };
    return this.#leaveBehind("label/leave", ended);
  }

  /** Deliver label rows while the page is being closed: nobody will hear the answer. */
  submitLeaving(rows) {
    return rows.length === 0 || this.#leaveBehind(this.#mine("submit"), rows);
  }

  /** Whoever signs in meanwhile in this browser must not get this annotator's clicks. */
  #mine(route) {
    const who = this.annotator === null ? "" : `?annotator=${encodeURIComponent(this.annotator)}`;
    return `label/${route}${who}`;
  }

  #leaveBehind(path, body) {
    const json = new Blob([JSON.stringify(body)], { type: "application/json" });
    return navigator.sendBeacon(path, json);
  }

  async #request(method, path, body) {
    try {
      const answer = await this.#attempt(method, path, body);
      this.#report("up");
      return answer;
    } catch (error) {
      if (error.kind === "signed-out" && (await this.#renewSession())) {
        const answer = await this.#attempt(method, path, body);
        this.#report("up");
        return answer;
      }
      if (error.kind === "signed-out") this.#report("signed-out");
      else if (error.retryable) this.#report("down");
      throw error;
    }
  }

  async #attempt(method, path, body) {
    const response = await this.#fetch(method, path, body);
    if (!response.ok) throw await problemOf(response);
    return response.status === 204 ? null : response.json();
  }

  async #fetch(method, path, body) {
    try {
      return await fetch(path, {
        method,
        headers: body === undefined ? {} : { "Content-Type": "application/json" },
        body: body === undefined ? undefined : JSON.stringify(body),
        credentials: "same-origin",
        cache: "no-store",
        signal: AbortSignal.timeout(TIMEOUT_MS),
      });
    } catch (cause) {
      throw new ApiError("unreachable", `the server does not answer (${cause.message})`);
    }
  }

  /** On loopback the start page signs a visitor in, so an ended session renews without a reload. */
  async #renewSession() {
    try {
      const before = await this.#fetch("GET", "./");
      return before.ok && (await this.#fetch("GET", "label/me")).ok;
    } catch {
      return false;
    }
  }

  #report(connection) {
    if (connection === this.#connection) return;
    this.#connection = connection;
    this.onConnection(connection);
  }
}
