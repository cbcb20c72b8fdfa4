// What the annotator sees. Draws the state it is given and reads nothing back but sizes.

import { Grid } from "./grid.js";
import { noticeFor, plural } from "./notices.js";
import { Picture } from "./picture.js";

const byId = (id) => document.getElementById(id);

const DEFAULT_INSTRUCTION = "Do you like this picture for this text?";
const GRID_INSTRUCTION = "Which of these do you like for this text?";
const UNLOADED = "This picture could not be loaded. Please skip or flag it.";
const UNKEPT = "This browser keeps no data: clicks not yet sent would be lost by a reload.";
const SAID = {
  like: "Liked.",
  dislike: "Disliked.",
  skip: "Skipped.",
  flag: "Flagged.",
  submit: "Submitted.",
};

export class View {
  #shown = null;
  #toastTimer = 0;
  #said = "";

  picture = new Picture(byId("stage"));
  grid = new Grid(byId("grid"));

  /**
   * state: `{phase, sheet, layout, connection, left, held, done, toSend, undoing, canUndo,
   * lastLabel, durable}`.
   */
  render(state) {
    const judging = state.phase === "item" && state.connection !== "signed-out";
    this.#showLayout(state.layout);
    byId("item").hidden = !judging;
    byId("notice").hidden = judging;
    if (judging) this.#showSheet(state);
    else this.#showNotice(noticeFor(state));
    for (const button of document.querySelectorAll(".actions button")) {
      const undo = button.dataset.action === "undo";
      button.disabled = undo ? !state.canUndo : !judging || state.undoing;
    }
    for (const what of document.querySelectorAll(".what")) {
      what.textContent = state.lastLabel ?? "";
    }
    this.#showProgress(state);
    this.#showConnection(state, judging);
  }

  #showLayout(layout) {
    const grid = layout === "grid";
    document.body.dataset.layout = layout;
    byId("grid").hidden = !grid;
    byId("stage").hidden = grid;
    byId("pixels").hidden = grid;
    byId("grid-actions").hidden = !grid;
    byId("single-actions").hidden = grid;
    byId("layout").setAttribute("aria-pressed", String(grid));
    byId("pixels").setAttribute("aria-pressed", String(this.picture.actual));
  }

  #showSheet({ sheet, layout, done }) {
    if (layout === "grid") {
      this.grid.show(sheet);
      const liked = sheet.answers.filter(({ label }) => label === "like").length;
      byId("submit-what").textContent = `Submit, ${liked} of ${sheet.entries.length} liked`;
    }
    if (this.#shown === sheet.entries) return;
    this.#shown = sheet.entries;
    const [entry] = sheet.entries;
    const { prompt, instruction } = entry.item;
    const question = layout === "grid" ? GRID_INSTRUCTION : DEFAULT_INSTRUCTION;
    byId("instruction").textContent = instruction || question;
    byId("prompt").textContent = prompt;
    byId("prompt").classList.toggle("long", prompt.length > 90);
    if (layout === "single") this.#showPicture(entry, prompt);
    const count = layout === "grid" ? ` ${plural(sheet.entries.length, "picture", "pictures")}` : "";
    const total = this.#said && `${this.#said} ${done} done. `;
    byId("live").textContent = `${total}Next:${count} ${prompt}`;
    this.#said = "";
  }

  #showPicture(entry, prompt) {
    const ready = entry.state === "ready";
    if (ready) entry.image.alt = `Picture made for: ${prompt}`;
    this.picture.show(ready ? entry.image : null, UNLOADED);
  }

  #showNotice({ title, text, busy = false, resume = "" }) {
    this.#shown = null;
    this.grid.clear();
    const heading = byId("notice-title");
    if (heading.textContent !== title) byId("live").textContent = `${title}. ${text}`;
    heading.textContent = title;
    byId("notice-text").textContent = text;
    byId("spinner").hidden = !busy;
    byId("resume").hidden = resume === "";
    byId("resume").textContent = resume;
  }

  #showProgress({ sheet, left, held, done, toSend }) {
    byId("done").textContent = String(done);
    byId("waiting").textContent = String(left.open + held + (sheet?.entries.length ?? 0));
    byId("sending").textContent = String(toSend);
    byId("sending-box").hidden = toSend === 0;
  }

  #showConnection({ connection, toSend, durable }, judging) {
    const banner = byId("banner");
    const clicks = plural(toSend, "click is", "clicks are");
    const kept = toSend > 0 ? ` ${clicks} kept and will be sent.` : "";
    const go = judging ? " You can go on with the pictures already here." : "";
    const news = [];
    if (connection === "down") news.push(`The server does not answer.${kept}${go}`);
    if (!durable) news.push(UNKEPT);
    banner.hidden = news.length === 0;
    banner.textContent = news.join(" ");
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
    this.#said = SAID[label];
    const button = byId(label);
    button.classList.remove("hit");
    void button.offsetWidth; // restarts the animation when the same key comes twice
    button.classList.add("hit");
  }

  /** A swipe on its way: the colour says what it will mean. */
  lean(label) {
    if (label) byId("stage").dataset.lean = label;
    else delete byId("stage").dataset.lean;
  }
}
