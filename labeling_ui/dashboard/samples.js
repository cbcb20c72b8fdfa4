// Pictures of the same prompts over time, each with its reward as a bar beneath.

import { byId, h, percent, placeText, rewardText } from "./dom.js";

const TEXTS = {
  probe: "The same prompts from the same noise, probe after probe.",
  training: "Prompts that came again in training; the noise differs.",
  latest: "The newest groups. Prompts that come again, or probes (run id ending in .heldout), show what changes.",
};

export async function showSamples(samples, picture) {
  byId("samples-text").textContent =
    samples.strips.length > 0
      ? TEXTS[samples.source]
      : "No picture of this run is kept any more: results are purged after seven days.";
  const same = haveSamePlaces(samples.strips);
  const head = same ? [header(samples)] : [];
  const rows = await Promise.all(
    samples.strips.map((strip) => stripView(strip, { ...samples, picture, same })),
  );
  byId("strips").classList.toggle("wall", !same);
  byId("strips").replaceChildren(...head, ...rows);
}

function haveSamePlaces(strips) {
  const places = strips.map(({ shots }) => shots.map((shot) => shot.x).join(" "));
  return strips.length > 0 && new Set(places).size === 1 && new Set(places[0].split(" ")).size > 1;
}

function header({ strips, axis }) {
  const places = strips[0].shots.map((shot) => h("span", {}, placeText(shot.x, axis)));
  return h("div", { class: "strip head", "aria-hidden": "true" }, h("span", {}), ...places);
}

async function stripView({ prompt, shots }, context) {
  const figures = await Promise.all(shots.map((shot) => shotView(shot, prompt, context)));
  const title = h("h3", { title: prompt }, prompt);
  return h("div", { class: "strip" }, title, ...figures);
}

async function shotView(shot, prompt, { axis, picture, same }) {
  const place = placeText(shot.x, axis);
  const verdict = verdictOf(shot);
  const image = h("img", { alt: `${prompt}, ${place}: ${verdict.text}`, loading: "lazy", decoding: "async" });
  image.addEventListener("load", () => image.classList.toggle("crisp", image.naturalWidth < 128));
  image.addEventListener("error", () => image.replaceWith(h("span", { class: "gone" }, "no longer kept")));
  picture(shot.sha256).then(
    (url) => (image.src = url),
    () => image.dispatchEvent(new Event("error")),
  );
  const bar = h("i", { class: "bar-track", "aria-hidden": "true" }, h("i", {}));
  bar.firstChild.style.width = `${100 * verdict.share}%`;
  const caption = h("figcaption", { class: verdict.name }, bar, verdict.text);
  if (!same) caption.append(h("small", {}, place));
  return h("figure", {}, image, caption);
}

function verdictOf({ status, reward, human }) {
  if (status === "pending") return { name: "pending", text: "waiting", share: 0 };
  if (reward === null) return { name: "pending", text: "no reward", share: 0 };
  const share = Math.min(Math.max(reward, 0), 1);
  if (human && reward === 1) return { name: "liked", text: "liked", share };
  if (human && reward === 0) return { name: "disliked", text: "disliked", share };
  return { name: "scored", text: human ? `${percent(reward)} like it` : rewardText(reward, false), share };
}

/** Hashes of all pictures on show. */
export const hashesOf = ({ strips }) =>
  new Set(strips.flatMap(({ shots }) => shots.map((shot) => shot.sha256)));

