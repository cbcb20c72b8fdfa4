// The two dialogs: why a picture is flagged, and the help panel with its keys that can be changed.

import { chosenKey, DEFAULT_BINDINGS, keyName, keysOf, rebind } from "./keys.js";
import { LANGUAGES, words } from "./language.js";

const byId = (id) => document.getElementById(id);

function keyCap(key) {
  const cap = document.createElement("kbd");
  cap.textContent = keyName(key);
  return cap;
}

/** Asks for a reason; resolves with "broken_image", "unsafe", "cannot_judge", or null. */
export class FlagDialog {
  #dialog = byId("flag-why");
  #answer = () => {};

  constructor() {
    this.#dialog.addEventListener("keydown", (event) => this.#key(event));
    this.#dialog.addEventListener("close", () => {
      // The event comes late: by then the next question may be on screen.
      if (!this.#dialog.open) this.#answer(this.#dialog.returnValue || null);
    });
  }

  get open() {
    return this.#dialog.open;
  }

  ask() {
    this.#answer(null);
    this.#dialog.returnValue = "";
    this.#dialog.showModal();
    return new Promise((resolve) => {
      this.#answer = resolve;
    });
  }

  #key(event) {
    const number = keysOf(event).find((key) => /^[1-9]$/.test(key));
    const button = this.#dialog.querySelectorAll(".choices button")[Number(number) - 1];
    if (!button || event.repeat) return;
    event.preventDefault();
    event.stopPropagation(); // 1 means like once the dialog is closed
    this.#dialog.close(button.value);
  }
}

export class HelpDialog {
  #dialog = byId("help");
  #preferences;
  #changing = null;

  /** Called after a key or a preference was changed. */
  onChange = () => {};
  /** Called with the language that was chosen. */
  onLanguage = () => {};

  constructor(preferences) {
    this.#preferences = preferences;
    byId("swipe").value = preferences.swipeRight;
    byId("swipe").addEventListener("change", ({ target }) => {
      this.#preferences.swipeRight = target.value;
    });
    byId("keys-reset").addEventListener("click", () => {
      this.#changing = null;
      this.#use(DEFAULT_BINDINGS, words.keysBack);
    });
    byId("help-keys").addEventListener("click", ({ target }) => {
      const action = target.closest("button")?.dataset.change;
      if (action) this.#listen(action);
    });
    byId("language").replaceChildren(
      ...Object.entries(LANGUAGES).map(([tag, { name }]) => new Option(name, tag)),
    );
    byId("language").addEventListener("change", ({ target }) => {
      this.#preferences.language = target.value;
      this.onLanguage(target.value);
    });
    this.#dialog.addEventListener("keydown", (event) => this.#key(event));
    this.#dialog.addEventListener("close", () => this.#listen(null));
    this.draw();
  }

  get open() {
    return this.#dialog.open;
  }

  /** Draw all words again, in the language in use. */
  draw() {
    byId("language").value = document.documentElement.lang;
    byId("keys-said").textContent = "";
    this.#fill();
  }

  toggle() {
    if (this.open) this.#dialog.close();
    else this.#dialog.showModal();
  }

  /** True while the next key pressed becomes an action's key. */
  get listening() {
    return this.#changing !== null;
  }

  #listen(action) {
    const before = this.#changing;
    this.#changing = action;
    byId("keys-said").textContent =
      action === null ? "" : words.pressNew(words[action]);
    this.#fill();
    if (this.open) this.#focus(action ?? before);
  }

  /** Rows are drawn anew, the keyboard's place stays. */
  #focus(action) {
    byId("help-keys").querySelector(`[data-change="${action}"]`)?.focus();
  }

  #key(event) {
    if (this.#changing === null || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    if (event.repeat || event.key === "Shift") return;
    const action = this.#changing;
    if (event.key === "Escape") return this.#listen(null);
    const key = chosenKey(event);
    const { bindings, problem } = rebind(this.#preferences.bindings, action, key);
    if (problem) {
      byId("keys-said").textContent = problem;
      return;
    }
    this.#changing = null;
    this.#use(bindings, words.keyIs(words[action], keyName(key)));
    this.#focus(action);
  }

  #use(bindings, said) {
    this.#preferences.bindings = bindings;
    this.#fill();
    byId("keys-said").textContent = said;
    this.onChange();
  }

  #fill() {
    const bindings = this.#preferences.bindings;
    byId("help-keys").replaceChildren(
      ...Object.entries(bindings).map(([action, keys]) => this.#row(action, keys)),
    );
    for (const hint of document.querySelectorAll("[data-hint]")) {
      hint.textContent = keyName(bindings[hint.dataset.hint][0]);
    }
  }

  #row(action, keys) {
    const row = document.createElement("tr");
    const name = document.createElement("th");
    name.scope = "row";
    name.textContent = words[action];
    const caps = document.createElement("td");
    caps.append(...keys.flatMap((key) => [keyCap(key), " "]));
    const change = document.createElement("button");
    change.type = "button";
    change.className = "link";
    change.dataset.change = action;
    change.textContent = this.#changing === action ? words.pressKey : words.change;
    change.setAttribute("aria-label", words.changeKey(words[action]));
    const last = document.createElement("td");
    last.append(change);
    row.append(name, caps, last);
    return row;
  }
}
