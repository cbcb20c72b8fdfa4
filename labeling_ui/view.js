// What the annotator sees. Draws the state it is given and reads nothing back but the stage's size;
// it refuses to invent progress: a wait is called a wait.

const byId = (id) => document.getElementById(id);
const plural = (n, one, many) => `${n} ${n === 1 ? one : many}`;

const DEFAULT_INSTRUCTION = "Do you like this picture for this text?";

/** Size in CSS pixels at which small pictures keep square, equal pixels on this screen. */
function shownSize(image, room) {
  const ratio = window.devicePixelRatio || 1;
  const fit = Math.min(room.width / image.naturalWidth, room.height / image.naturalHeight);
  if (fit <= 1) return { scale: fit, crisp: false };
  const whole = Math.max(1, Math.floor(fit * ratio)) / ratio;
  return { scale: whole, crisp: true };
}

/** The words for a page without a picture: `{title, text, busy, resume}`. */
export function noticeFor({ phase, connection, left, toSend }) {
  if (connection === "signed-out") {
    return {
      title: "You are signed out",
      text:
        "Open your invitation link again in this browser." +
        (toSend > 0 ? ` ${plural(toSend, "click is", "clicks are")} kept here until then.` : ""),
    };
  }
  if (phase === "paused") {
    return {
      title: "Paused",
      text: "You were away, so your pictures were given to others. Nothing you clicked is lost.",
      resume: true,
    };
  }
  if (connection === "down") {
    return { title: "No connection", text: "Trying to reach the server again.", busy: true };
  }
  if (phase === "loading") {
    return { title: "Loading", text: "The next pictures are on their way.", busy: true };
  }
  const others = left.leased_elsewhere;
  if (others > 0) {
    const next = left.next_return_s;
    const when = next === null ? "" : ` (the next within ${Math.ceil(next)} s)`;
    return {
      title: "Nothing for you right now",
      text:
        `${plural(others, "picture is", "pictures are")} being judged by others. ` +
        `What they give back comes to you by itself${when}.`,
      busy: true,
    };
  }
  return {
    title: "No pictures are waiting",
    text:
      "You are up to date. When the trainer asks about new pictures, " +
      "they appear here by themselves.",
    busy: true,
  };
}

export class View {
  #shown = null;
  #toastTimer = 0;
  #said = "";

  constructor() {
    new ResizeObserver(() => this.#fit()).observe(byId("stage"));
  }

  /**
   * state: `{phase, entry, connection, left, held, done, toSend, undoing, canUndo, lastLabel,
   * durable}`.
   */
  render(state) {
    const judging = state.phase === "item" && state.connection !== "signed-out";
    byId("item").hidden = !judging;
    byId("notice").hidden = judging;
    if (judging) this.#showItem(state.entry);
    else this.#showNotice(noticeFor(state));
    for (const id of ["like", "dislike", "skip"]) byId(id).disabled = !judging || state.undoing;
    byId("undo").disabled = !state.canUndo;
    byId("undo-what").textContent = state.lastLabel ?? "";
    this.#showProgress(state);
    this.#showConnection(state, judging);
  }

  #showItem(entry) {
    if (this.#shown === entry) return;
    this.#shown = entry;
    const { prompt, instruction } = entry.item;
    byId("instruction").textContent = instruction || DEFAULT_INSTRUCTION;
    byId("prompt").textContent = prompt;
    byId("prompt").classList.toggle("long", prompt.length > 90);
    byId("stage").replaceChildren(this.#picture(entry, prompt));
    this.#fit();
    byId("live").textContent = `${this.#said}Next: ${prompt}`;
    this.#said = "";
  }

  #picture(entry, prompt) {
    if (entry.state === "ready") {
      entry.image.alt = `Picture made for: ${prompt}`;
      return entry.image;
    }
    const broken = document.createElement("p");
    broken.className = "broken";
    broken.textContent = "This picture could not be loaded. Please skip it.";
    return broken;
  }

  #fit() {
    const image = byId("stage").querySelector("img");
    if (!image) return;
    const room = byId("stage").getBoundingClientRect();
    if (room.width === 0 || room.height === 0) return;
    const { scale, crisp } = shownSize(image, room);
    image.width = image.naturalWidth * scale;
    image.height = image.naturalHeight * scale;
    image.classList.toggle("crisp", crisp);
  }

  #showNotice({ title, text, busy = false, resume = false }) {
    this.#shown = null;
    const heading = byId("notice-title");
    if (heading.textContent !== title) byId("live").textContent = `${title}. ${text}`;
    heading.textContent = title;
    byId("notice-text").textContent = text;
    byId("spinner").hidden = !busy;
    byId("resume").hidden = !resume;
  }

  #showProgress({ phase, left, held, done, toSend }) {
    byId("done").textContent = String(done);
    byId("waiting").textContent = String(left.open + held + (phase === "item" ? 1 : 0));
    byId("sending").textContent = String(toSend);
    byId("sending-box").hidden = toSend === 0;
  }

  #showConnection({ connection, toSend, durable }, judging) {
    const banner = byId("banner");
    const clicks = plural(toSend, "click is", "clicks are");
    const kept = toSend > 0 ? ` ${clicks} kept and will be sent.` : "";
    const go = judging ? " You can go on with the pictures already here." : "";
    banner.hidden = connection !== "down" && durable;
    if (connection === "down") banner.textContent = `The server does not answer.${kept}${go}`;
    else if (!durable) {
      banner.textContent =
        "This browser keeps no data: clicks not yet sent would be lost by a reload.";
    }
  }

  /** Say something in passing. */
  say(text) {
    const toast = byId("toast");
    toast.textContent = text;
    toast.classList.add("shown");
    clearTimeout(this.#toastTimer);
    this.#toastTimer = setTimeout(() => toast.classList.remove("shown"), 3500);
    byId("live").textContent = text;
  }

  /** Light up the button of a decision for a moment, so that a slip of the finger is noticed. */
  flash(label) {
    this.#said = { like: "Liked. ", dislike: "Disliked. ", skip: "Skipped. " }[label];
    const button = byId(label);
    button.classList.remove("hit");
    void button.offsetWidth; // restarts the animation when the same key comes twice
    button.classList.add("hit");
  }

  /** rows: `[action, "A, 1, →"]`. */
  fillHelp(rows) {
    const cells = rows.map(([action, keys]) => {
      const row = document.createElement("tr");
      row.append(document.createElement("th"), document.createElement("td"));
      row.firstChild.scope = "row";
      row.firstChild.textContent = action[0].toUpperCase() + action.slice(1);
      for (const key of keys) {
        const cap = document.createElement("kbd");
        cap.textContent = key;
        row.lastChild.append(cap, " ");
      }
      return row;
    });
    byId("help-keys").replaceChildren(...cells);
  }

  toggleHelp() {
    const help = byId("help");
    if (help.open) help.close();
    else help.showModal();
  }
}
