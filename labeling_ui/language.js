// In which language the page speaks: the annotator's choice, else the browser's first language that
// there are messages in, else English.

import de from "./messages/de.js";
import en from "./messages/en.js";

/** Language tag -> messages; a further language is a line here and a file beside these. */
export const LANGUAGES = Object.freeze({ en, de });

/** The messages in use. */
export let words = en;

function spoken(chosen) {
  if (chosen in LANGUAGES) return chosen;
  const wanted = navigator.languages.map((tag) => tag.toLowerCase().split("-")[0]);
  return wanted.find((tag) => tag in LANGUAGES) ?? "en";
}

/** Speak `chosen`, or what the browser prefers if it is null; puts every fixed text of the page. */
export function speak(chosen) {
  const language = spoken(chosen);
  words = LANGUAGES[language];
  document.documentElement.lang = language;
  document.title = words.title;
  for (const element of document.querySelectorAll("[data-text]")) {
    element.textContent = words[element.dataset.text];
  }
  for (const element of document.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", words[element.dataset.label]);
  }
  return language;
}
