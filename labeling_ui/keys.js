// Which key means which action. Pure: it reads an event and answers with an action's name; it
// refuses keys held down, keys with a modifier and keys typed into a control that wants them.

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
const NAMES = {
  " ": "Space",
  ArrowRight: "→",
  ArrowLeft: "←",
  ArrowUp: "↑",
  ArrowDown: "↓",
  Backspace: "Bksp",
};

/** What is printed for a key on a button or in the help table. */
export function keyName(key) {
  return NAMES[key] ?? key.toUpperCase();
}

const same = (one, other) => one.toLowerCase() === other.toLowerCase();

/** A focused control keeps the keys it needs: a reader who tabs to "Like" may press Space on it. */
function belongsToControl(event) {
  const tag = event.target?.tagName;
  if (tag === "INPUT" || tag === "TEXTAREA" || tag === "SELECT") return true;
  if (tag !== "BUTTON") return false;
  const tile = event.target.classList.contains("tile");
  return event.key === " " || (event.key === "Enter" && !tile);
}

function boundTo(key, bindings) {
  const found = Object.entries(bindings).find(([, keys]) => keys.some((one) => same(one, key)));
  return found?.[0] ?? null;
}

/** The action for a keydown event, or null. */
export function actionFor(event, bindings, layout = "single") {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return null;
  if (belongsToControl(event)) return null;
  if (layout === "grid" && event.key in GRID_KEYS) return GRID_KEYS[event.key];
  return boundTo(event.key, bindings);
}

/**
 * Make `key` the first key of an action, in place of the one that was: `{bindings}`, or
 * `{problem}` in words. Another action gives the key up if it keeps at least one.
 */
export function rebind(bindings, action, key) {
  if (RESERVED.includes(key) || /^F\d+$/.test(key)) {
    return { problem: `${keyName(key)} is needed by the browser.` };
  }
  const before = boundTo(key, bindings);
  if (before !== null && before !== action && bindings[before].length === 1) {
    return { problem: `${keyName(key)} is the only key for ${before}: change that one first.` };
  }
  const rest = (keys) => keys.filter((one) => !same(one, key));
  const changed = Object.entries(bindings).map(([name, keys]) => {
    if (name !== action) return [name, rest(keys)];
    return [name, [key, ...rest(keys.slice(1))]];
  });
  return { bindings: Object.fromEntries(changed) };
}
