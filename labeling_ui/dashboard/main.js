// Composition root of the dashboard: polls the server, hands each answer to its panel. Polling is
// enough: what is shown changes every few seconds, and a reconnect needs no code.

import { Api } from "./api.js";
import { Chart } from "./chart.js";
import { byId, Drawn, percent } from "./dom.js";
import { showPeople } from "./people.js";
import { hashesOf, showSamples } from "./samples.js";
import { Settings } from "./settings.js";
import { showAwaited, showFigures, showGroups } from "./waiting.js";

const POLL_MS = 2000;
const SAMPLES_EVERY = 3;
const NO_RUN = "default";

const api = new Api();
const chart = new Chart();
const settings = new Settings(api);
const drawn = new Drawn();

const chosen = () => new URLSearchParams(location.search).get("run");
let polls = 0;
let running = null;

/** Offer the runs, keep the choice; the latest run is shown until somebody chooses. */
async function listRuns() {
  const [{ runs }, { campaigns }] = await Promise.all([api.get("runs"), api.get("campaigns")]);
  const asked = campaigns.map((one) => one.id).filter((id) => !runs.some((run) => run.run_id === id));
  const names = [...runs.map((run) => run.run_id), ...asked];
  const now = chosen() ?? names[0] ?? NO_RUN;
  byId("empty").hidden = names.length > 0;
  byId("waiting").hidden = names.length === 0;
  if (drawn.changed("runs", [names, now])) {
    const all = names.includes(now) ? names : [now, ...names];
    byId("run").replaceChildren(...all.map((name) => new Option(name, name, false, name === now)));
    byId("run").disabled = names.length === 0;
  }
  return { now, run: runs.find((one) => one.run_id === now) };
}

async function showRun(id, run) {
  const view = run ? await api.get(`runs/${id}/progress`) : null;
  const human = view?.curves.some((curve) => curve.human && !curve.probe) ?? false;
  if (view) {
    showAwaited(view.awaited);
    const only = view.curves.length > 0 && view.curves.every((curve) => curve.human);
    byId("reward-title").textContent = only ? "Like rate" : "Reward";
    if (drawn.changed("chart", [id, view.axis, view.curves])) chart.show(view);
    title(view);
  } else {
    chart.show({ curves: [], axis: "step" });
    const nameless = id === NO_RUN;
    byId("awaited-title").textContent = nameless ? "Requests without a run" : "Nothing asked yet";
    byId("awaited-text").textContent = nameless
      ? "Send a run_id and a step with them to see a curve here."
      : "Its settings are kept for when it begins.";
  }
  const nothing = !view || view.curves.every((curve) => curve.points.length === 0);
  byId("chart").hidden = nothing;
  byId("chart-empty").hidden = !nothing;
  byId("chart-empty").textContent = run
    ? "The first rewards draw the curve: judge a few pictures, or wait for the scorers."
    : "A curve needs requests with a run_id and a step.";
  return human || (run?.rewards.includes("human") ?? true);
}

function title({ curves }) {
  const likes = curves.find((curve) => curve.human && !curve.probe);
  const last = likes?.points.at(-1);
  document.title = last ? `${percent(last.mean)} like it · Dashboard` : "Dashboard";
}

async function showPictures(id, run) {
  if (!run) {
    byId("samples-text").textContent = "Pictures of a run appear here.";
    byId("strips").replaceChildren();
    return;
  }
  const samples = await api.get(`runs/${id}/samples`);
  if (!drawn.changed("samples", [id, samples])) return;
  api.keepOnly(hashesOf(samples));
  await showSamples(samples, (sha256) => api.picture(sha256));
}

async function showCampaign(id, human) {
  const [stats, campaign] = await Promise.all([
    api.get(`campaigns/${id}/stats`),
    api.get(`campaigns/${id}`),
  ]);
  document.body.classList.toggle("machines", !human && stats.labels_last_hour === 0);
  if (drawn.changed("figures", stats)) {
    showFigures(stats);
    showGroups(stats);
    showPeople(stats);
  }
  if (drawn.changed("campaign", campaign)) settings.show(campaign);
}

async function poll() {
  const { now, run } = await listRuns();
  const id = encodeURIComponent(now);
  const human = await showRun(id, run);
  await showCampaign(id, human);
  if (polls % SAMPLES_EVERY === 0) await showPictures(id, run);
  polls += 1;
}

function connection(state, text) {
  byId("live").dataset.state = state;
  if (byId("live-text").textContent !== text) byId("live-text").textContent = text;
}

/** One poll after the other, none while nobody looks. */
async function keepGoing() {
  for (;;) {
    if (!document.hidden) {
      try {
        await poll();
        connection("up", "live");
      } catch (error) {
        if (error.kind === "locked") await askForKey(error);
        else connection("down", "no connection");
        if (error.kind === undefined) console.error(error);
      }
    }
    await new Promise((resolve) => {
      running = resolve;
      setTimeout(resolve, POLL_MS);
    });
  }
}

async function askForKey(error) {
  connection("down", "locked");
  byId("key-said").textContent = api.hasKey ? error.message : "";
  const dialog = byId("key");
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  if (byId("key-input").value) api.useKey(byId("key-input").value);
  byId("key-input").value = "";
}

function listen() {
  byId("run").addEventListener("change", (event) => {
    history.replaceState(null, "", `?run=${encodeURIComponent(event.target.value)}`);
    polls = 0;
    running?.();
  });
  document.addEventListener("visibilitychange", () => running?.());
  for (const button of document.querySelectorAll("[data-export]")) {
    button.addEventListener("click", async () => {
      const { export: what, format } = button.dataset;
      const run = byId("run").value;
      const of = run && run !== NO_RUN ? `&run_id=${encodeURIComponent(run)}` : "";
      try {
        await api.download(`${what}/export?format=${format}${of}`, `${what}.${format}`);
      } catch (error) {
        byId("settings-said").textContent = error.message;
      }
    });
  }
}

listen();
keepGoing();
