// Composition root of the labeling page: wires keys, buttons, queue, outbox and view together.
// Nothing is decided here.

import { LabelApi, randomId } from "./api.js";
import { FlagDialog, HelpDialog } from "./dialogs.js";
import { actionFor } from "./keys.js";
import { speak } from "./language.js";
import { PageNote } from "./leftovers.js";
import { openStore, Outbox } from "./outbox.js";
import { Preferences } from "./preferences.js";
import { LeaseQueue } from "./queue.js";
import { Session } from "./session.js";
import { View } from "./view.js";

const POLL_MS = 1500;
const HEARTBEAT_MS = 10_000;
const PAUSE_AFTER_MS = 180_000;
const MOVES = ["left", "right", "up", "down", "first", "last"];
const OPPOSITE = { like: "dislike", dislike: "like" };

const EMPTY = {
  phase: "loading",
  sheet: null,
  layout: "single",
  left: { open: 0, leased_elsewhere: 0, next_return_s: null, for_others: 0, pause: null },
  held: 0,
  done: 0,
  toSend: 0,
  undoing: false,
  canUndo: false,
  lastLabel: null,
  durable: true,
};

const toWire = ({ id, assignment, token, label, reason = null, rt_ms }) => ({
  assignment,
  token,
  label,
  reason,
  rt_ms,
  client_label_id: id,
});

const byId = (id) => document.getElementById(id);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Who am I: asked until the server answers, because nothing can start without it. */
async function signIn(api, view) {
  for (;;) {
    try {
      return await api.me();
    } catch {
      const connection = api.connection === "up" ? "down" : api.connection;
      view.render({ ...EMPTY, connection });
      await pause(POLL_MS);
    }
  }
}

/** What an action's name does; the same for keys, buttons and swipes. */
function actionsOf({ session, view, flag, help, preferences }) {
  const inGrid = () => session.layout === "grid";
  const mark = (label) => {
    session.mark(view.grid.at, label);
    view.grid.move("right");
  };
  const toggle = (index) => {
    const liked = session.sheet?.answers[index]?.label === "like";
    session.mark(index, liked ? "dislike" : "like");
  };
  const why = async () => {
    const { sheet } = session;
    if (!sheet) return;
    const index = inGrid() ? view.grid.at : 0;
    const reason = await flag.ask();
    if (reason === null || session.sheet?.entries !== sheet.entries) return;
    if (inGrid()) session.mark(index, "flag", reason);
    else session.decide("flag", reason);
  };
  const actions = {
    help: () => help.toggle(),
    undo: () => session.undo(),
    flag: why,
    layout: () => {
      session.layout = inGrid() ? "single" : "grid";
      preferences.layout = session.layout;
    },
    pixels: () => {
      view.picture.toggleActual();
      session.onChange();
    },
    submit: () => session.submit(),
    toggle: () => toggle(view.grid.at),
    "skip-all": () => session.decide("skip"),
  };
  for (const label of ["like", "dislike", "skip"]) {
    actions[label] = () => (inGrid() ? mark(label) : session.decide(label));
  }
  for (const where of MOVES) actions[where] = () => view.grid.move(where);
  view.grid.onTap = toggle;
  return (action) => actions[action]();
}

function listenToKeys({ session, flag, help, preferences }, act) {
  document.addEventListener("keydown", (event) => {
    if (flag.open || help.listening) return;
    const action = actionFor(event, preferences.bindings, session.layout);
    if (!action || (help.open && action !== "help")) return;
    event.preventDefault();
    if (session.phase === "paused") session.resume();
    else act(action);
  });
}

function listenToButtons(session, act) {
  for (const button of document.querySelectorAll("[data-action]")) {
    button.addEventListener("click", (event) => {
      // A pointer leaves no focus behind, or the next Space would press the same button again.
      if (event.detail > 0) button.blur();
      act(button.dataset.action);
    });
  }
  byId("resume").addEventListener("click", () => {
    if (session.phase === "retry") session.goOn();
    else session.resume();
  });
}

function listenToSwipes({ view, preferences, session }) {
  const meaning = (side) =>
    side === "right" ? preferences.swipeRight : OPPOSITE[preferences.swipeRight];
  view.picture.onSwipe = (side) => session.decide(meaning(side));
  view.picture.onDrag = (share) => {
    view.lean(Math.abs(share) < 1 ? null : meaning(share > 0 ? "right" : "left"));
  };
}

function listenToPage({ session, api, outbox, note }) {
  for (const sign of ["keydown", "pointerdown", "pointermove"]) {
    document.addEventListener(sign, () => session.touch(), { passive: true });
  }
  window.addEventListener("pagehide", () => {
    api.submitLeaving(outbox.leaving().map(toWire));
    session.pause();
    api.leave(api.page, outbox.assignments());
  });
  window.addEventListener("pageshow", async (event) => {
    if (!event.persisted) return;
    api.page = randomId(); // the server has closed the page that was
    await note.open(api.page);
    session.resume();
  });
  window.addEventListener("online", () => outbox.nudge());
  window.addEventListener("beforeunload", (event) => {
    if (outbox.size > 0 && !outbox.durable) event.preventDefault();
  });
}

/** Sessions end; the page goes on once this annotator is back, and begins anew for another one. */
async function lookWhoIsBack(api, me) {
  try {
    const { name } = await api.me();
    if (name !== me.name) window.location.reload();
  } catch (error) {
    console.warn(`Still signed out: ${error.message}`);
  }
}

function keepGoing(session, api, me) {
  setInterval(() => {
    if (api.connection === "signed-out") lookWhoIsBack(api, me);
    else session.advance();
  }, POLL_MS);
  setInterval(() => {
    if (session.idleMs > PAUSE_AFTER_MS) session.pause();
    else session.heartbeat();
  }, HEARTBEAT_MS);
}

/** A page has ended: its clicks are sent from here, and the pictures it did not judge given back. */
async function takeOver(page, { api, outbox, note }) {
  await outbox.open(await note.living());
  api.leave(page, outbox.assignments());
}

function drawing({ view, session, api, queue, outbox }) {
  return () =>
    view.render({
      phase: session.phase,
      sheet: session.sheet,
      layout: session.layout,
      connection: api.connection,
      left: queue.left,
      held: queue.size,
      done: session.done,
      toSend: outbox.size,
      undoing: session.undoing,
      canUndo: session.canUndo,
      lastLabel: session.lastLabel,
      durable: outbox.durable,
    });
}

async function start() {
  const view = new View();
  const api = new LabelApi();
  const preferences = new Preferences();
  speak(preferences.language);
  const [flag, help] = [new FlagDialog(), new HelpDialog(preferences)];
  const me = await signIn(api, view);
  api.annotator = me.name;

  const store = await openStore(me.name);
  const note = new PageNote(me.name);
  const queue = new LeaseQueue(api);
  queue.together = (preferences.layout ?? me.layout) === "grid";
  const outbox = new Outbox(store, (rows) => api.submit(rows.map(toWire)));
  const session = new Session({ api, queue, outbox, labels: me.labels });
  const parts = { view, api, preferences, flag, help, note, queue, outbox, session };

  session.onChange = drawing(parts);
  session.onSay = (text) => view.say(text);
  session.onDecided = (label) => view.flash(label);
  help.onLanguage = (language) => {
    speak(language);
    help.draw();
    view.forget();
    session.onChange();
  };
  api.onConnection = (connection) => {
    if (connection === "up") outbox.nudge();
    session.onChange();
  };
  const act = actionsOf(parts);
  listenToKeys(parts, act);
  listenToButtons(session, act);
  listenToSwipes(parts);
  listenToPage(parts);
  await note.open(api.page);
  await outbox.open(await note.living());
  note.inherit(api.page, (page) => takeOver(page, parts));
  session.advance();
  keepGoing(session, api, me);
}

start();
