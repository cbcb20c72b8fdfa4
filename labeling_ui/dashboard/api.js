// The server as the dashboard sees it. With an API key every request carries it, pictures too; the
// key lives in this tab alone.

const TIMEOUT_MS = 20_000;
const STORED = "reward-server-key";

/** kind: "locked" (401, 403), "missing" (404), "refused" (other 4xx), "down" (no answer, 5xx). */
export class ApiError extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

const KINDS = { 401: "locked", 403: "locked", 404: "missing" };

export class Api {
  #key = stored();
  #pictures = new Map();

  get hasKey() {
    return this.#key !== null;
  }

  useKey(key) {
    this.#key = key;
    try {
      sessionStorage.setItem(STORED, key);
    } catch {
      // A browser that keeps no data: the key lasts until a reload.
    }
  }

  get(path) {
    return this.#request("GET", path).then((answer) => answer.json());
  }

  patch(path, body) {
    return this.#request("PATCH", path, body).then((answer) => answer.json());
  }

  /** A picture's URL; fetched first where an <img> could not show the key. */
  async picture(sha256) {
    const path = `images/sha256-${sha256}`;
    if (this.#key === null) return path;
    if (!this.#pictures.has(sha256)) {
      const file = this.#request("GET", path).then((answer) => answer.blob());
      this.#pictures.set(sha256, file.then((blob) => URL.createObjectURL(blob)));
    }
    return this.#pictures.get(sha256);
  }

  /** Forget pictures that are not shown any more. */
  keepOnly(hashes) {
    for (const [sha256, url] of this.#pictures) {
      if (hashes.has(sha256)) continue;
      this.#pictures.delete(sha256);
      url.then(URL.revokeObjectURL, () => {});
    }
  }

  /** Save an export: by link where that is enough, so that it streams to the disk. */
  async download(path, name) {
    const answer = await this.#request("GET", path, undefined, null);
    if (this.#key === null) {
      await answer.body?.cancel(); // the server will not refuse: let the browser fetch it
      save(path, name);
      return;
    }
    const blob = await answer.blob();
    const url = URL.createObjectURL(blob);
    save(url, name);
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  }

  async #request(method, path, body, timeout = TIMEOUT_MS) {
    const headers = this.#key === null ? {} : { Authorization: `Bearer ${this.#key}` };
    if (body !== undefined) headers["Content-Type"] = "application/json";
    let response;
    try {
      response = await fetch(path, {
        method,
        headers,
        body: body === undefined ? undefined : JSON.stringify(body),
        credentials: "same-origin",
        cache: method === "GET" && path.startsWith("images/") ? "default" : "no-store",
        signal: timeout === null ? undefined : AbortSignal.timeout(timeout),
      });
    } catch (cause) {
      throw new ApiError("down", `the server does not answer (${cause.message})`);
    }
    if (response.ok) return response;
    const problem = await response.json().catch(() => ({}));
    const kind = KINDS[response.status] ?? (response.status >= 500 ? "down" : "refused");
    throw new ApiError(kind, problem.detail ?? response.statusText);
  }
}

function stored() {
  try {
    return sessionStorage.getItem(STORED);
  } catch {
    return null;
  }
}

function save(url, name) {
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
}
