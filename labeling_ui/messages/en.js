// Every word of the labeling page in English. A further language is a file like this one and a line
// in ../language.js: the same names, texts where there are texts, functions where there are functions.

const plural = (n, one, many) => `${n} ${n === 1 ? one : many}`;
const about = (seconds) =>
  seconds < 90 ? `${Math.max(1, Math.ceil(seconds))} s` : `${Math.ceil(seconds / 60)} min`;

export default {
  name: "English",

  title: "Label pictures",
  brand: "Like or dislike",
  done: "done",
  byYou: " by you",
  waiting: "waiting",
  toSend: "to send",
  layout: "All pictures of a text at once",
  help: "Help",
  items: "Pictures to judge",
  yourJudgement: "Your judgement",

  instruction: "Do you like this picture for this text?",
  gridInstruction: "Which of these do you like for this text?",
  noPrompt: "(This picture was made without a text.)",
  madeFor: (prompt) => `Picture made for: ${prompt}`,
  next: (n, prompt) => `Next:${n > 1 ? ` ${n} pictures` : ""} ${prompt}`,
  total: (said, done) => `${said} ${done} done.`,

  undo: "Undo",
  flag: "Flag",
  skip: "Skip",
  skipAll: "Skip all",
  dislike: "Dislike",
  like: "Like",
  pixels: "100 % pixels",
  submit: "Submit",
  submitCount: (liked, n) => `Submit, ${liked} of ${n} liked`,
  said: {
    like: "Liked.",
    dislike: "Disliked.",
    skip: "Skipped.",
    flag: "Flagged.",
    submit: "Submitted.",
  },
  what: (label) => ({ like: "like", dislike: "dislike", skip: "skip", flag: "flag" })[label] ?? "",
  pictures: (n) => plural(n, "picture", "pictures"),

  tile: (i, n, said) => `Picture ${i} of ${n}, ${said}`,
  tileSaid: { like: "liked", dislike: "not liked", skip: "skipped", flag: "flagged" },
  reasons: { broken_image: "broken", unsafe: "unsafe", cannot_judge: "cannot be judged" },

  flagTitle: "What is wrong with this picture?",
  broken_image: "The image is broken",
  unsafe: "It is unsafe",
  cannot_judge: "It cannot be judged",
  cancel: "Cancel",
  close: "Close",

  keys: "Keys",
  keysReset: "Back to the usual keys",
  keysBack: "The usual keys are back.",
  keyNames: { " ": "Space", Backspace: "Bksp" },
  change: "Change",
  changeKey: (action) => `Change the key for ${action}`,
  pressKey: "press a key",
  pressNew: (action) => `Press the new key for ${action}, or Esc to leave it.`,
  keyIs: (action, key) => `${action} is ${key} now.`,
  keyOfBrowser: (key) => `${key} is needed by the browser.`,
  onlyKey: (key, action) => `${key} is the only key for ${action}: change that one first.`,
  gridKeys:
    "With many pictures at once: arrow keys move, Space or a tap likes or unlikes, Enter submits. " +
    "What you leave alone is a dislike.",
  touch: "Touch and mouse",
  swipe: "A swipe to the right is a",
  zoom: "Pinch or turn the wheel to zoom, drag to look around.",
  language: "Language",
  goodToKnow: "Good to know",
  aboutSkip:
    "Skip means “I cannot judge this one”: it is not a dislike. Undo takes your clicks back, the " +
    "latest first, until the requester has used them.",
  aboutKeeping:
    "Every click is kept in this browser until the server has confirmed it, also across a reload or " +
    "a new sign-in.",

  loading: "Loading",
  asking: "Asking the server for pictures.",
  onTheirWay: "The next pictures are on their way.",
  noConnection: "No connection",
  tryingAgain: "Trying to reach the server again.",
  signedOut: "You are signed out",
  signedOutText: (clicks) =>
    "Open your invitation link again in this browser; this page goes on by itself." +
    (clicks > 0 ? ` ${plural(clicks, "click is", "clicks are")} kept here until then.` : ""),
  nothing: "Nothing for you right now",
  withOthers: (n, next) =>
    `${plural(n, "picture is", "pictures are")} being judged by others. What they give back comes ` +
    `to you by itself${next === null ? "" : ` (the next in about ${about(next)})`}.`,
  yourPart: "Your part is done for now",
  forOthers: (n) =>
    `${plural(n, "picture you have judged waits", "pictures you have judged wait")} for the votes ` +
    "of others. New pictures appear here by themselves.",
  upToDate: "No pictures are waiting",
  upToDateText:
    "You are up to date. When the trainer asks about new pictures, they appear here by themselves.",
  paused: "Paused",
  pausedText: "You were away, so your pictures were given to others. Nothing you clicked is lost.",
  resume: "Continue",
  retry: "Time for a short break",
  retryText:
    "Some of your last answers differ from what the requester is looking for. That happens to " +
    "everybody. Please read the question again, take a breath, and go on with fresh eyes.",
  ready: "I am ready",
  requester: "Thank you so far",
  requesterText:
    "Your answers and what the requester is looking for seem to be two different things. Please " +
    "talk to whoever invited you; then this page goes on by itself.",
  noAnswer: (clicks, judging) =>
    "The server does not answer." +
    (clicks > 0 ? ` ${plural(clicks, "click is", "clicks are")} kept and will be sent.` : "") +
    (judging ? " You can go on with the pictures already here." : ""),
  unkept: "This browser keeps no data: clicks not yet sent would be lost by a reload.",

  late: "One click came too late: the picture had gone to somebody else.",
  skipOrFlag: "This picture could not be loaded: please skip or flag it.",
  nothingToUndo: "There is nothing to undo.",
  takenBack: "Taken back: please judge again.",
  takenBackGone: "Taken back. The picture has gone to somebody else.",
  notUndone: (why) => `Not undone: ${why}.`,
  undoLater: "Undo needs the server, which does not answer yet. Please try again.",
  notYet: (why) => `Not yet: ${why}.`,
  refused: (why) => `Clicks are kept, but the server refuses them: ${why}`,
  gone: "A picture has gone to somebody else.",
};
