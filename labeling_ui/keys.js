// Which key means which action. Pure: it reads an event and answers with an action's name;
// it refuses keys held down, keys with a modifier and keys typed into a control that wants them.

/** Action name -> `KeyboardEvent.key` values, compared without regard to case. */
export const DEFAULT_BINDINGS = Object.freeze({
  like: ["a", "1", "ArrowRight"],
  dislike: ["x", "0", "ArrowLeft"],
  skip: [" "],
  undo: ["Backspace", "z"],
  help: ["h", "?"],
});

const NAMES = { " ": "Space", ArrowRight: "→", ArrowLeft: "←", Backspace: "Backspace" };

/** What is printed for a key on a button or in the help table. */
export function keyName(key) {
  return NAMES[key] ?? key.toUpperCase();
}

/** A focused control keeps the keys it needs: a reader who tabs to "Like" may press Space on it. */
function belongsToControl(event) {
  const tag = event.target?.tagName;
  if (tag === "INPUT" || tag === "TEXTAREA" || tag === "SELECT") return true;
  return tag === "BUTTON" && (event.key === " " || event.key === "Enter");
}

/** The action for a keydown event, or null. */
export function actionFor(event, bindings = DEFAULT_BINDINGS) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return null;
  if (belongsToControl(event)) return null;
  const pressed = event.key.toLowerCase();
  for (const [action, keys] of Object.entries(bindings)) {
    if (keys.some((key) => key.toLowerCase() === pressed)) return action;
  }
  return null;
}
