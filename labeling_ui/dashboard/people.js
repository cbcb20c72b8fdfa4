// Who clicks, how fast, and how far they agree: a row of bars per person, shares with their
// intervals on one scale, agreement beyond chance on a scale with Krippendorff's marks.

import { byId, count, duration, h, percent, plural, s } from "./dom.js";

const WIDTH = 168;
const HEIGHT = 34;
const NO_PEOPLE = "Nobody has clicked in the last hour.";

export function showPeople({ annotators, agreement, waiting }) {
  const most = Math.max(1, ...annotators.flatMap((person) => person.pace));
  byId("annotators").replaceChildren(...annotators.map((person) => row(person, most)));
  const empty = byId("people-empty");
  empty.hidden = annotators.length > 0;
  empty.replaceChildren(NO_PEOPLE, waiting > 0 ? " Pictures wait on the " : " Invite somebody to the ",
    h("a", { href: "./" }, "labeling page"), ".");
  byId("agreement").replaceChildren(...agreementView(agreement, annotators.length));
}

function row(person, most) {
  const { name, labels, likes, skips } = person;
  const speed = person.median_s === null ? "" : `, ${person.median_s.toFixed(1)} s each`;
  return h(
    "li",
    { class: "person" },
    h("p", { class: "name" }, h("b", {}, name), ` ${count(labels)} an hour${speed}`),
    bars(person, most),
    split(likes, labels - likes - skips, skips),
    shareView("agrees", person.agreement),
    person.gold ? shareView("known answers", person.gold) : null,
  );
}

function bars({ name, pace, last_s }, most) {
  const step = WIDTH / pace.length;
  const heights = pace.map((n) => (n === 0 ? 1 : 3 + (n / most) * (HEIGHT - 3)));
  return s(
    "svg",
    {
      class: "bars", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img",
      "aria-label": `Labels of ${name} over the last hour, the last one ${duration(last_s)} ago`,
    },
    ...heights.map((height, i) =>
      s("rect", {
        class: pace[i] ? "some" : "none", x: i * step, y: HEIGHT - height,
        width: step - 1.5, height, rx: 1,
      }),
    ),
  );
}

/** Likes against dislikes as one bar; skips are no votes. */
function split(likes, dislikes, skips) {
  const votes = likes + dislikes;
  if (votes === 0) return h("p", { class: "split" }, plural(skips, "skip", "skips"));
  const bar = h("span", { class: "split-bar", "aria-hidden": "true" }, h("i", {}));
  bar.firstChild.style.width = `${(100 * likes) / votes}%`;
  const text = `likes ${percent(likes / votes)}`;
  return h("p", { class: "split" }, bar, skips ? `${text}, ${plural(skips, "skip", "skips")}` : text);
}

/** A share as a dot with its 95 % interval between 0 and 1. */
function shareView(what, share) {
  if (share === null) return null;
  const [range, dot] = [h("i", { class: "range" }), h("i", { class: "point" })];
  range.style.left = `${100 * share.low}%`;
  range.style.width = `${100 * (share.high - share.low)}%`;
  dot.style.left = `${(100 * share.part) / share.whole}%`;
  const text = `${what} ${percent(share.part / share.whole)}`;
  return h(
    "p",
    { class: "share" },
    h("span", { class: "scale", "aria-hidden": "true" }, range, dot),
    h("span", {}, text, h("small", {}, ` of ${count(share.whole)}`)),
  );
}

const VERDICTS = [
  [0.8, "People agree: the reward says what most would say"],
  [0.667, "Good enough for tentative conclusions"],
  [0.2, "People differ: more votes per picture or a clearer instruction would help"],
  [-Infinity, "No better than chance: make the instruction one clear criterion"],
];

function agreementView({ pictures, raw, alpha, why }, people) {
  if (raw === null) {
    if (people === 0) return [];
    return [h("p", { class: "hint" },
      "How far people agree is known once two of them judge the same picture: " +
        "set two votes per picture or more below.")];
  }
  const same = `${percent(raw)} of votes agree on ${plural(pictures, "picture", "pictures")}`;
  if (alpha === null) return [h("p", { class: "hint" }, `${same}. Beyond chance: ${why}.`)];
  const verdict = VERDICTS.find(([from]) => alpha >= from)[1];
  return [
    h("h3", {}, "Agreement beyond chance ", h("span", { class: "number" }, alpha.toFixed(2))),
    gauge(alpha),
    h("p", { class: "hint" }, `${verdict}. ${same}.`),
  ];
}

/** Krippendorff's alpha between 0 and 1, with his marks at 0.667 and 0.8. */
function gauge(alpha) {
  const at = (value) => 6 + Math.min(Math.max(value, 0), 1) * 308;
  const mark = (value, text, anchor) => [
    s("line", { class: "mark", x1: at(value), x2: at(value), y1: 8, y2: 26 }),
    s("text", { x: at(value), y: 41, "text-anchor": anchor }, text),
  ];
  return s(
    "svg",
    {
      class: "gauge", viewBox: "0 0 320 46", role: "img",
      "aria-label": `Krippendorff's alpha ${alpha.toFixed(2)}; 0 is chance, 1 is perfect`,
    },
    s("rect", { class: "poor", x: at(0), width: at(0.667) - at(0), y: 12, height: 10 }),
    s("rect", { class: "fair", x: at(0.667), width: at(0.8) - at(0.667), y: 12, height: 10 }),
    s("rect", { class: "good", x: at(0.8), width: at(1) - at(0.8), y: 12, height: 10 }),
    ...mark(0, "chance", "start"),
    ...mark(0.667, "0.67", "end"),
    ...mark(0.8, "0.8", "start"),
    s("circle", { cx: at(alpha), cy: 17, r: 8 }),
  );
}
