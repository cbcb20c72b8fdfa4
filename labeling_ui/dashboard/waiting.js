// What the run waits for, and the groups people are at: one square per picture.

import { byId, count, duration, h, plural } from "./dom.js";

const CELLS = {
  l: ["liked", "liked"],
  d: ["disliked", "disliked"],
  x: ["without", "without a reward"],
  h: ["held", "in somebody’s hands"],
  ".": ["open", "waiting"],
};

/** The words for what a run waits for: `{title, text}`. */
export function awaitedWords({ by, groups, items, since_s }) {
  const what = `${plural(items, "picture", "pictures")} in ${plural(groups, "group", "groups")}`;
  const since = since_s === null ? "" : duration(since_s);
  return {
    people: {
      title: "Waiting for people",
      text: `${what}; the oldest was asked ${since} ago.`,
    },
    scorers: { title: "Waiting for scorers", text: `${what}; the oldest for ${since}.` },
    settling: {
      title: "A moment for second thoughts",
      text: "All pictures are judged; the last click can still be undone.",
    },
    trainer: {
      title: "The trainer is at work",
      text: `Everything it asked is answered; its last request came ${since} ago.`,
    },
    nothing: {
      title: "Quiet",
      text: `Everything is answered, and nothing was asked for ${since}. Has the run ended?`,
    },
  }[by];
}

export function showAwaited(awaited) {
  const { title, text } = awaitedWords(awaited);
  byId("awaited-title").textContent = title;
  byId("awaited-text").textContent = text;
  byId("waiting").dataset.by = awaited.by;
}

/** Large figures: `[value, what]`; what is not known is not shown. */
export function figuresOf(stats) {
  const pace = stats.labels_per_hour;
  return [
    stats.waiting === 0
      ? null
      : [count(stats.waiting), stats.waiting === 1 ? "picture waits" : "pictures wait"],
    stats.oldest_s === null ? null : [duration(stats.oldest_s), "the oldest waits"],
    pace === null ? null : [count(Math.round(pace)), "votes an hour, now"],
    stats.eta_s === null || stats.waiting === 0 ? null : [duration(stats.eta_s), "until all are judged"],
  ].filter((figure) => figure !== null);
}

export function showFigures(stats) {
  const figures = figuresOf(stats).map(([value, what]) =>
    h("div", {}, h("dt", {}, what), h("dd", {}, value)),
  );
  byId("figures").replaceChildren(...figures);
}

export function showGroups({ groups, groups_waiting }) {
  const list = groups.map(groupRow);
  if (groups_waiting > groups.length) {
    const more = plural(groups_waiting - groups.length, "more group", "more groups");
    list.push(h("li", { class: "more" }, `and ${more}`));
  }
  byId("groups").replaceChildren(...list);
}

function groupRow(group) {
  const name = group.step === null ? "" : `step ${count(group.step)}`;
  const eta = group.eta_s === null ? `${group.votes_missing} to go` : `in ${duration(group.eta_s)}`;
  return h(
    "li",
    { class: "group" },
    h("p", { class: "what-prompt", title: group.prompt }, group.prompt),
    h("p", { class: "step" }, name),
    cells(group.cells),
    h("p", { class: "eta" }, eta),
  );
}

function cells(letters) {
  const tally = Object.entries(CELLS)
    .map(([letter, [, words]]) => [[...letters].filter((one) => one === letter).length, words])
    .filter(([n]) => n > 0)
    .map(([n, words]) => `${n} ${words}`);
  const squares = [...letters].map((letter) => h("i", { class: CELLS[letter][0] }));
  return h("span", { class: "cells", role: "img", "aria-label": tally.join(", ") }, ...squares);
}
