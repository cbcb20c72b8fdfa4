// Building elements and words. Pure but for the document it makes elements in.

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element: `h("p", {class: "hint"}, "text", child)`. */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function s(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

export const byId = (id) => document.getElementById(id);

export const plural = (n, one, many) => `${count(n)} ${n === 1 ? one : many}`;

export const count = (n) => n.toLocaleString("en");

export const percent = (share) => `${Math.round(100 * share)} %`;

/** A reward for reading: two digits, a like rate in percent. */
export const rewardText = (value, human) => (human ? percent(value) : value.toFixed(2));

/** Seconds in words: `8 s`, `4 min`, `2 h 10 min`, `3 days`. */
export function duration(seconds) {
  if (seconds < 90) return `${Math.max(Math.round(seconds), 0)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 90) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return `${Math.round(hours / 24)} days`;
}

/** A place on a run's axis: a step, or a time since its first request. */
export const placeText = (x, axis) =>
  axis === "step" ? `step ${count(Math.round(x))}` : `after ${duration(x)}`;

/** Redraw only what has changed: pictures must not flicker and focus must not be lost. */
export class Drawn {
  #said = new Map();

  changed(key, state) {
    const text = JSON.stringify(state);
    if (this.#said.get(key) === text) return false;
    this.#said.set(key, text);
    return true;
  }
}
