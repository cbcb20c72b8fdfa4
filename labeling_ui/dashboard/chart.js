// The reward curve: lines with their intervals, probes as dots, a reading line that follows the
// pointer or the arrow keys. Draws the curves it is given; labels stand at the lines themselves.

import { byId, h, percent, placeText, plural, rewardText, s } from "./dom.js";

const LOWEST = 260;
const MARGIN = { top: 14, right: 128, bottom: 30, left: 48 };
const NARROW = { top: 14, right: 84, bottom: 30, left: 44 };

/** Ends and marks of an axis that holds `low..high`; rewards between 0 and 1 never leave it. */
export function scale(low, high, most = 5) {
  const within = low >= 0 && high <= 1;
  const room = Math.max((high - low) * 0.12, within ? 0.03 : 1e-6);
  let from = low - room;
  let to = high + room;
  if (within) [from, to] = [Math.max(from, 0), Math.min(to, 1)];
  const rough = (to - from) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const marks = [];
  for (let mark = Math.ceil(from / step) * step; mark <= to + step * 1e-9; mark += step) {
    marks.push(Number(mark.toPrecision(12)));
  }
  return { from, to, marks };
}

const nameOf = (curve) =>
  (curve.human ? "like rate" : curve.reward) + (curve.probe ? " probe" : "");

/** A curve whose rewards lie between 0 and 1: so do the ends of its intervals. */
function within(curve) {
  const end = (value) => (value === null ? null : Math.min(Math.max(value, 0), 1));
  const points = curve.points.map((point) => ({ ...point, low: end(point.low), high: end(point.high) }));
  return { ...curve, points };
}

/** What the chart says to somebody who cannot see it. */
export function summary(curves, axis) {
  return curves
    .map((curve) => {
      const [first, last] = [curve.points[0], curve.points.at(-1)];
      const text = (point) => rewardText(point.mean, curve.human);
      if (curve.points.length === 1) return `${nameOf(curve)} ${text(first)}`;
      const span = `${placeText(first.x, axis)} to ${text(last)} at ${placeText(last.x, axis)}`;
      return `${nameOf(curve)} from ${text(first)} at ${span}`;
    })
    .join("; ");
}

export class Chart {
  #view = null;
  #reading = null;
  #x = (value) => value;

  constructor() {
    const box = byId("chart");
    new ResizeObserver(() => this.#draw()).observe(box);
    box.addEventListener("pointermove", (event) => this.#readAt(event));
    box.addEventListener("pointerleave", () => this.#read(null));
    box.addEventListener("keydown", (event) => this.#step(event));
    box.addEventListener("focusout", () => this.#read(null));
  }

  show({ curves, axis }) {
    const drawn = curves.filter((curve) => curve.points.length > 0);
    const means = drawn.flatMap((curve) => curve.points.map((point) => point.mean));
    const bounded = means.every((mean) => mean >= 0 && mean <= 1);
    this.#view = { curves: bounded ? drawn.map(within) : drawn, axis };
    this.#draw();
  }

  #draw() {
    const box = byId("chart");
    const width = box.clientWidth;
    const { curves, axis } = this.#view ?? { curves: [] };
    if (width === 0 || curves.length === 0) {
      box.replaceChildren();
      return;
    }
    const margin = width < 520 ? NARROW : MARGIN;
    const height = Math.max(box.clientHeight, LOWEST);
    const points = curves.flatMap((curve) => curve.points);
    const ys = scale(
      Math.min(...points.map((p) => p.low ?? p.mean)),
      Math.max(...points.map((p) => p.high ?? p.mean)),
    );
    const xs = [Math.min(...points.map((p) => p.x)), Math.max(...points.map((p) => p.x))];
    const span = Math.max(xs[1] - xs[0], 1e-9);
    const x = (value) => margin.left + ((value - xs[0]) / span) * (width - margin.left - margin.right);
    const inner = height - margin.top - margin.bottom;
    const y = (value) => margin.top + inner * (1 - (value - ys.from) / (ys.to - ys.from));
    this.#x = x;
    const human = curves.every((curve) => curve.human);
    const svg = s(
      "svg",
      {
        viewBox: `0 0 ${width} ${height}`, width, height, tabindex: 0, role: "img",
        "aria-label": `${summary(curves, axis)}. Arrow keys read it point by point.`,
      },
      ...grid(ys, y, margin.left, width - margin.right, human),
      ...ticks(xs, axis, x, height - 8),
      s("line", { class: "reading", y1: margin.top, y2: height - margin.bottom, x1: -9, x2: -9 }),
      ...curves.map((curve, index) => line(curve, colour(curves, index), x, y)),
      ...ends(curves, x, y),
    );
    const [focused, reading] = [box.contains(document.activeElement), this.#reading];
    box.replaceChildren(svg, h("div", { class: "tip", role: "status", hidden: "" }));
    if (focused) svg.focus();
    if (reading !== null) this.#read(reading);
  }

  #readAt(event) {
    if (!this.#view) return;
    const at = event.clientX - byId("chart").getBoundingClientRect().left;
    const places = this.#places();
    const gap = (place) => Math.abs(this.#x(place) - at);
    this.#read(places.reduce((a, b) => (gap(b) < gap(a) ? b : a), places[0]));
  }

  #step(event) {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!move || !this.#view) return;
    event.preventDefault();
    const places = this.#places();
    const start = move > 0 ? -1 : places.length;
    const now = this.#reading === null ? start : places.indexOf(this.#reading);
    this.#read(places[Math.min(Math.max(now + move, 0), places.length - 1)]);
  }

  #places() {
    const all = this.#view.curves.flatMap((curve) => curve.points.map((point) => point.x));
    return [...new Set(all)].sort((a, b) => a - b);
  }

  #read(place) {
    const box = byId("chart");
    const [mark, tip] = [box.querySelector(".reading"), box.querySelector(".tip")];
    this.#reading = place ?? null;
    if (!mark) return;
    tip.hidden = this.#reading === null;
    const at = tip.hidden ? -9 : this.#x(place);
    mark.setAttribute("x1", at);
    mark.setAttribute("x2", at);
    if (tip.hidden) return;
    const { curves, axis } = this.#view;
    const rows = curves.flatMap((curve, index) => {
      const point = curve.points.find((one) => one.x === place);
      if (!point) return [];
      const range =
        point.low === null
          ? ""
          : ` (${rewardText(point.low, curve.human)} to ${rewardText(point.high, curve.human)})`;
      const text = `${nameOf(curve)} ${rewardText(point.mean, curve.human)}${range}, ${plural(point.n, "picture", "pictures")}`;
      return [h("p", { class: colour(curves, index) }, text)];
    });
    tip.replaceChildren(h("p", {}, placeText(place, axis)), ...rows);
    tip.style.left = `${Math.min(at + 10, Math.max(box.clientWidth - tip.offsetWidth, 0))}px`;
  }
}

/** Class of a reward's colour: the same for its probe. */
function colour(curves, index) {
  const names = [...new Set(curves.map((curve) => curve.reward))];
  return `c${names.indexOf(curves[index].reward) % 4}`;
}

function grid({ marks }, y, left, right, human) {
  return marks.flatMap((mark) => [
    s("line", { class: "rule", x1: left, x2: right, y1: y(mark), y2: y(mark) }),
    s("text", { class: "mark", x: left - 8, y: y(mark) + 4, "text-anchor": "end" },
      human ? percent(mark) : String(mark)),
  ]);
}

function ticks([from, to], axis, x, y) {
  const at = to > from ? [from, (from + to) / 2, to] : [from];
  const anchors = ["start", "middle", "end"];
  return at.map((place, index) =>
    s("text", { class: "mark", x: x(place), y, "text-anchor": anchors[index] },
      placeText(place, axis)));
}

function line(curve, name, x, y) {
  const path = (points) => points.map(([a, b], i) => `${i ? "L" : "M"}${a.toFixed(1)} ${b.toFixed(1)}`);
  const means = curve.points.map((p) => [x(p.x), y(p.mean)]);
  const sure = curve.points.filter((p) => p.low !== null);
  const band = [
    ...sure.map((p) => [x(p.x), y(p.high)]),
    ...sure.toReversed().map((p) => [x(p.x), y(p.low)]),
  ];
  const dots = curve.probe || curve.points.length === 1 ? means : [];
  return s(
    "g",
    { class: `curve ${name}${curve.probe ? " probe" : ""}` },
    sure.length > 1 ? s("path", { class: "band", d: `${path(band).join("")}Z` }) : null,
    s("path", { class: "line", d: path(means).join("") }),
    ...dots.map(([cx, cy]) => s("circle", { cx, cy, r: 3.5 })),
  );
}

/** The lines' names at their right ends, pushed apart where they would overlap. */
function ends(curves, x, y) {
  const labels = curves
    .map((curve, index) => {
      const last = curve.points.at(-1);
      return { curve, name: colour(curves, index), at: x(last.x), y: y(last.mean), last };
    })
    .sort((a, b) => a.y - b.y);
  const right = Math.max(...labels.map((label) => label.at));
  const alone = new Set(curves.map((curve) => curve.reward)).size === 1;
  let floor = MARGIN.top;
  return labels.map((label) => {
    const place = Math.max(label.y, floor);
    floor = place + 34;
    const value = rewardText(label.last.mean, label.curve.human);
    return s(
      "text",
      { class: `end ${label.name}`, x: right + 8, y: place },
      s("tspan", { class: "value" }, value),
      s("tspan", { x: right + 8, dy: 14 }, alone && label.curve.probe ? "probe" : nameOf(label.curve)),
    );
  });
}
