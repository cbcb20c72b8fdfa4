// What the annotator sees. Draws the state it is given and reads nothing back but sizes.

import { Grid } from "./grid.js";
import { words } from "./language.js";
import { noticeFor } from "./notices.js";
import { Picture } from "./picture.js";

const byId = (id) => document.getElementById(id);

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

  /** Forget what is on screen, so that the next state is drawn with all its words. */
  forget() {
    this.#shown = null;
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
      byId("submit-what").textContent = words.submitCount(liked, sheet.entries.length);
    }
    if (this.#shown === sheet.entries) return;
    this.#shown = sheet.entries;
    const [entry] = sheet.entries;
    const { prompt, instruction } = entry.item;
    const question = layout === "grid" ? words.gridInstruction : words.instruction;
    const empty = prompt.trim() === "";
    byId("instruction").textContent = instruction || question;
    byId("prompt").textContent = empty ? words.noPrompt : prompt;
    byId("prompt").classList.toggle("empty", empty);
    byId("prompt").classList.toggle("long", prompt.length > 90);
    if (layout === "single") this.#showPicture(entry, prompt);
    const count = layout === "grid" ? sheet.entries.length : 1;
    const total = this.#said && `${words.total(this.#said, done)} `;
    byId("live").textContent = `${total}${words.next(count, prompt)}`;
    this.#said = "";
  }

  #showPicture(entry, prompt) {
    const ready = entry.state === "ready";
    if (ready) entry.image.alt = words.madeFor(prompt);
    this.picture.show(ready ? entry.image : null, words.skipOrFlag);
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
    const news = [];
    if (connection === "down") news.push(words.noAnswer(toSend, judging));
    if (!durable) news.push(words.unkept);
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
    this.#said = words.said[label];
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
