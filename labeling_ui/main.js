// Composition root of the labeling page: wires keys, buttons, queue, outbox and view together.
// Nothing is decided here.

import { LabelApi } from "./api.js";
import { actionFor, DEFAULT_BINDINGS, keyName } from "./keys.js";
import { LeaseNote } from "./leftovers.js";
import { openStore, Outbox } from "./outbox.js";
import { LeaseQueue } from "./queue.js";
import { Session } from "./session.js";
import { View } from "./view.js";

const POLL_MS = 1500;
const HEARTBEAT_MS = 10_000;
const PAUSE_AFTER_MS = 180_000;

const EMPTY = {
  phase: "loading",
  left: { open: 0, leased_elsewhere: 0, next_return_s: null },
  held: 0,
  done: 0,
  toSend: 0,
  undoing: false,
  canUndo: false,
  lastLabel: null,
  durable: true,
};

const toWire = ({ id, assignment, token, label, rt_ms }) => ({
  assignment,
  token,
  label,
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

function listenToKeys(session, act) {
  document.addEventListener("keydown", (event) => {
    const action = actionFor(event);
    if (!action || (byId("help").open && action !== "help")) return;
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
  byId("help-open").addEventListener("click", () => act("help"));
  byId("resume").addEventListener("click", () => session.resume());
}

function listenToPage(session, outbox, leave, isDurable) {
  for (const sign of ["keydown", "pointerdown", "pointermove"]) {
    document.addEventListener(sign, () => session.touch(), { passive: true });
  }
  window.addEventListener("pagehide", leave);
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) session.resume();
  });
  window.addEventListener("online", () => outbox.nudge());
  window.addEventListener("beforeunload", (event) => {
    if (outbox.size > 0 && !isDurable) event.preventDefault();
  });
}

function keepGoing(session) {
  setInterval(() => session.advance(), POLL_MS);
  setInterval(() => {
    if (session.idleMs > PAUSE_AFTER_MS) session.pause();
    else session.heartbeat();
  }, HEARTBEAT_MS);
}

async function start() {
  const view = new View();
  const api = new LabelApi();
  view.fillHelp(Object.entries(DEFAULT_BINDINGS).map(([name, keys]) => [name, keys.map(keyName)]));
  const me = await signIn(api, view);

  const { store, durable } = await openStore(me.name);
  const note = new LeaseNote();
  const queue = new LeaseQueue(api);
  const outbox = new Outbox(store, (rows) => api.submit(rows.map(toWire)));
  const session = new Session({ api, queue, outbox, labels: me.labels });
  const render = () =>
    view.render({
      phase: session.phase,
      entry: session.current,
      connection: api.connection,
      left: queue.left,
      held: queue.size,
      done: session.done,
      toSend: outbox.size,
      undoing: session.undoing,
      canUndo: session.canUndo,
      lastLabel: session.lastLabel,
      durable,
    });
  session.onChange = () => {
    render();
    note.write(session.leases());
  };
  session.onSay = (text) => view.say(text);
  session.onDecided = (label) => view.flash(label);
  api.onConnection = (connection) => {
    if (connection === "up") outbox.nudge();
    render();
  };
  const act = (action) => {
    if (action === "help") view.toggleHelp();
    else if (action === "undo") session.undo();
    else session.decide(action);
  };
  listenToKeys(session, act);
  listenToButtons(session, act);
  const leave = () => {
    api.submitLeaving(outbox.leaving().map(toWire));
    session.pause();
    note.clear();
  };
  listenToPage(session, outbox, leave, durable);
  await Promise.all([outbox.open(), note.open()]);
  const sending = outbox.assignments();
  note.inherit((leases) => {
    api.release(leases.filter(({ assignment }) => !sending.has(assignment)));
  });
  session.advance();
  keepGoing(session);
}

start();
