// The words for a page without a picture. Pure: a state in, title and text out.

import { words } from "./language.js";

function waiting({ leased_elsewhere: others, next_return_s: next, for_others: judged }) {
  if (others > 0) {
    return { title: words.nothing, text: words.withOthers(others, next), busy: true };
  }
  if (judged > 0) return { title: words.yourPart, text: words.forOthers(judged), busy: true };
  return { title: words.upToDate, text: words.upToDateText, busy: true };
}

const BY_PHASE = {
  paused: () => ({ title: words.paused, text: words.pausedText, resume: words.resume }),
  retry: () => ({ title: words.retry, text: words.retryText, resume: words.ready }),
  requester: () => ({ title: words.requester, text: words.requesterText }),
};

/** `{title, text, busy?, resume?}`; `resume` is the label of a button that goes on. */
export function noticeFor({ phase, connection, left, toSend }) {
  if (connection === "signed-out") {
    return { title: words.signedOut, text: words.signedOutText(toSend) };
  }
  if (phase in BY_PHASE) return BY_PHASE[phase]();
  if (connection === "down") {
    return { title: words.noConnection, text: words.tryingAgain, busy: true };
  }
  if (phase === "loading" || left.open > 0) {
    return { title: words.loading, text: words.onTheirWay, busy: true };
  }
  return waiting(left);
}
