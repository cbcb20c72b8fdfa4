// The words for a page without a picture. Pure; it refuses to invent progress: a wait is called a
// wait, and says for what.

/** "1 click is", "3 clicks are". */
export const plural = (n, one, many) => `${n} ${n === 1 ? one : many}`;

function about(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.ceil(seconds))} s`;
  return `${Math.ceil(seconds / 60)} min`;
}

function signedOut(toSend) {
  const kept = ` ${plural(toSend, "click is", "clicks are")} kept here until then.`;
  return {
    title: "You are signed out",
    text:
      "Open your invitation link again in this browser; this page goes on by itself." +
      (toSend > 0 ? kept : ""),
  };
}

function waiting({ leased_elsewhere: others, next_return_s: next, for_others: judged }) {
  if (others > 0) {
    const when = next === null ? "" : ` (the next in about ${about(next)})`;
    return {
      title: "Nothing for you right now",
      text:
        `${plural(others, "picture is", "pictures are")} being judged by others. ` +
        `What they give back comes to you by itself${when}.`,
      busy: true,
    };
  }
  if (judged > 0) {
    const wait = plural(judged, "picture you have judged waits", "pictures you have judged wait");
    return {
      title: "Your part is done for now",
      text: `${wait} for the votes of others. New pictures appear here by themselves.`,
      busy: true,
    };
  }
  return {
    title: "No pictures are waiting",
    text:
      "You are up to date. When the trainer asks about new pictures, " +
      "they appear here by themselves.",
    busy: true,
  };
}

const BY_PHASE = {
  paused: {
    title: "Paused",
    text: "You were away, so your pictures were given to others. Nothing you clicked is lost.",
    resume: "Continue",
  },
  retry: {
    title: "Time for a short break",
    text:
      "Some of your last answers differ from what the requester is looking for. That happens to " +
      "everybody. Please read the question again, take a breath, and go on with fresh eyes.",
    resume: "I am ready",
  },
  requester: {
    title: "Thank you so far",
    text:
      "Your answers and what the requester is looking for seem to be two different things. " +
      "Please talk to whoever invited you; then this page goes on by itself.",
  },
};

/** `{title, text, busy?, resume?}`; `resume` is the label of a button that goes on. */
export function noticeFor({ phase, connection, left, toSend }) {
  if (connection === "signed-out") return signedOut(toSend);
  if (phase in BY_PHASE) return BY_PHASE[phase];
  if (connection === "down") {
    return { title: "No connection", text: "Trying to reach the server again.", busy: true };
  }
  if (phase === "loading" || left.open > 0) {
    return { title: "Loading", text: "The next pictures are on their way.", busy: true };
  }
  return waiting(left);
}
