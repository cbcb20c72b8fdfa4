// Which key means which action. Pure: it reads an event and answers with an action's name, or null
// for keys held down, keys with a modifier and keys typed into a control that wants them.

import { words } from "./language.js";

/** Action name -> `KeyboardEvent.key` values, compared without regard to case; first: the hint. */
export const DEFAULT_BINDINGS = Object.freeze({
  like: ["a", "1", "ArrowRight"],
  dislike: ["x", "0", "ArrowLeft"],
  skip: [" "],
  flag: ["f"],
  undo: ["Backspace", "z"],
  pixels: ["p"],
  help: ["h", "?"],
});

/** Keys of the grid that cannot be changed: they are what these keys do everywhere. */
const GRID_KEYS = Object.freeze({
  ArrowLeft: "left",
  ArrowRight: "right",
  ArrowUp: "up",
  ArrowDown: "down",
  Home: "first",
  End: "last",
  Enter: "submit",
  " ": "toggle",
});

const RESERVED = ["Tab", "Escape", "Enter", "Shift", "Control", "Alt", "Meta", "CapsLock"];
const ARROWS = { ArrowRight: "→", ArrowLeft: "←", ArrowUp: "↑", ArrowDown: "↓" };

/** What is printed for a key on a button or in the help table. */
export function keyName(key) {
  return ARROWS[key] ?? words.keyNames[key] ?? key.toUpperCase();
}

const same = (one, other) => one.toLowerCase() === other.toLowerCase();

/** A letter of another script, or what an input method says while it is composing. */
const notLatin = (key) =>
  key === "Process" || key === "Unidentified" || /^(?!\p{Script=Latin})\p{L}\p{M}*$/u.test(key);

/**
 * What a key may be called, the likeliest first: as typed (full-width forms as the plain ones), then
 * by its place on the keyboard. The place decides where the typed character cannot: letters of
 * Cyrillic, Greek, Arabic, ... keyboards, and the digit row where digits need Shift (AZERTY).
 */
export function keysOf({ key, code = "", shiftKey = false }) {
  const typed = key.normalize("NFKC");
  const [, letter] = /^Key([A-Z])$/.exec(code) ?? [];
  const [, digit] = /^(?:Digit|Numpad)([0-9])$/.exec(code) ?? [];
  const names = [typed];
  if (letter && notLatin(typed)) names.push(letter.toLowerCase());
  if (digit && !shiftKey && typed.length === 1) names.push(digit);
  return names;
}

/** A focused control keeps the keys it needs: a reader who tabs to "Like" may press Space on it. */
function belongsToControl(event) {
  const tag = event.target?.tagName;
  if (tag === "INPUT" || tag === "TEXTAREA" || tag === "SELECT") return true;
  if (tag !== "BUTTON") return false;
  const tile = event.target.classList.contains("tile");
  return keysOf(event)[0] === " " || (event.key === "Enter" && !tile);
}

function boundTo(key, bindings) {
  const found = Object.entries(bindings).find(([, keys]) => keys.some((one) => same(one, key)));
  return found?.[0] ?? null;
}

/** The key that a person chose by pressing it, in letters and digits that other keyboards have too. */
export function chosenKey(event) {
  return keysOf(event).at(-1);
}

/** The action for a keydown event, or null. */
export function actionFor(event, bindings, layout = "single") {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return null;
  if (belongsToControl(event)) return null;
  const names = keysOf(event);
  if (layout === "grid" && names[0] in GRID_KEYS) return GRID_KEYS[names[0]];
  return names.map((key) => boundTo(key, bindings)).find((action) => action !== null) ?? null;
}

/**
 * Make `key` the first key of an action, in place of the one that was: `{bindings}`, or
 * `{problem}` in words. Another action gives the key up if it keeps at least one.
 */
export function rebind(bindings, action, key) {
  if (RESERVED.includes(key) || /^F\d+$/.test(key)) {
    return { problem: words.keyOfBrowser(keyName(key)) };
  }
  const before = boundTo(key, bindings);
  if (before !== null && before !== action && bindings[before].length === 1) {
    return { problem: words.onlyKey(keyName(key), words[before]) };
  }
  const rest = (keys) => keys.filter((one) => !same(one, key));
  const changed = Object.entries(bindings).map(([name, keys]) => {
    if (name !== action) return [name, rest(keys)];
    return [name, [key, ...rest(keys.slice(1))]];
  });
  return { bindings: Object.fromEntries(changed) };
}
