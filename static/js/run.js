// The page of one run: loads its curves, log and samples, then goes on by events.

import { ApiError, call } from "./api.js";
import { Charts } from "./charts.js";
import { Health } from "./health.js";
import { RunStream, leave } from "./live.js";
import { Log } from "./log.js";
import { Samples } from "./samples.js";
import { Series } from "./series.js";
import { run as doVerb } from "./verbs.js";
import { copy } from "./clipboard.js";
import { count, duration, short, showTimes } from "./words.js";

const id = Number(document.getElementById("live").dataset.run);
const at = (name) => document.getElementById(name);
const PACE = 30; // steps over which the pace is measured
const GRACE = 300; // milliseconds that the charts wait for what they say, so that nothing moves when it comes

// ---- progress

const stage = at("live").dataset.stage;
const asks = ["respond", "judge"].includes(stage); // it has answers or verdicts, and no steps
const COUNTED = ["answers", "requests", "pairs", "verdicts"]; // as in app/runs/queries.py
let total = Number(at("progress").dataset.total) || null;
let unit = at("progress").dataset.unit;
let pace = []; // [time, step] of the latest steps

function showProgress(step, speed) {
  if (!total) return;
  at("steps").textContent = asks ? ` · ${count(step)} of ${count(total)} ${unit}` : ` · step ${count(step)} of ${count(total)}`;
  at("progress").querySelector("progress").value = step / total;
  if (speed) at("speed").textContent = ` · ${short(speed)} tokens/s`;
  const [first, last] = [pace[0], pace.at(-1)];
  if (pace.length > 3 && last[1] > first[1] && step < total && at("progress").dataset.state === "running") {
    const left = (Math.max(0, last[0] - first[0]) / (last[1] - first[1])) * (total - step);
    at("eta").textContent = `about ${duration(left)} left · `;
  } else at("eta").textContent = "";
}

function noteStep(time, step) {
  if (pace.length && step <= pace.at(-1)[1]) pace = [];
  pace.push([time, step]);
  if (pace.length > PACE) pace.shift();
}

function takeProgress(event) {
  const { body } = event;
  if (event.kind === "status" || event.kind === "progress") latest = event;
  if (event.kind === "status") {
    total = body.facts?.steps ?? total;
    at("phase").textContent = body.phase === "training" ? "" : ` · ${body.phase}`;
  } else if (event.kind === "progress" && asks && COUNTED.includes(body.unit)) {
    [total, unit] = [body.total ?? total, body.unit];
    noteStep(event.time, body.done);
    showProgress(body.done);
  } else if (event.kind === "progress" && body.task !== "training") {
    const share = body.total ? ` ${Math.floor((100 * body.done) / body.total)} %` : ` ${short(body.done)} ${body.unit}`;
    at("phase").textContent = ` · ${body.task}${share}`;
  } else if (event.kind === "metrics" && asks) {
    if (body.tokens_per_second) at("speed").textContent = ` · ${short(body.tokens_per_second)} tokens/s`;
  } else if (event.kind === "metrics" && "loss" in body) {
    noteStep(event.time, event.step);
    showProgress(event.step, body.tokens_per_second);
  }
}

const headEvent = () => Number(at("head").dataset.event); // the run's last event when its head was drawn
let asked = 0; // how often the head was asked for
let shown = 0; // which of those answers is shown
let latest = null; // the latest news of what the run is doing

// The head and the side as the server draws them now: buttons, state, error, files. Answers may overtake each other.
async function redraw() {
  const mine = ++asked;
  const response = await fetch(location.href, { headers: { Accept: "text/html" } }).catch(() => null);
  if (!response?.ok) return;
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const event = Number(page.getElementById("head").dataset.event);
  if (event < headEvent() || (event === headEvent() && mine < shown)) return;
  shown = mine;
  for (const name of ["head", "aside"]) {
    const open = [...at(name).querySelectorAll("details")].map((each) => each.open);
    at(name).replaceWith(document.adoptNode(page.getElementById(name)));
    at(name).querySelectorAll("details").forEach((each, index) => (each.open = open[index] ?? each.open));
    showTimes(at(name));
  }
  total = Number(at("progress").dataset.total) || total;
  if (at("progress").dataset.total) unit = at("progress").dataset.unit;
  if (latest?.number > event) takeProgress(latest);
  showAttempt();
}

let series = null;

// "attempt 3: went on from step 400"
function showAttempt() {
  const last = series?.attempts.at(-1);
  if (!last || last.attempt < 2 || !at("attempt").textContent.includes(last.attempt)) return;
  const from = asks ? `after ${count(last.step)} ${unit}` : `from step ${count(last.step - 1)}`;
  at("attempt").textContent = `attempt ${last.attempt}: ` + (last.step > 1 ? `went on ${from}` : "began again");
}

// ---- verbs

document.addEventListener("click", async (event) => {
  const copier = event.target.closest("#aside [data-copy]");
  if (copier) return copy(document.querySelector(copier.dataset.copy).textContent, copier);
  const button = event.target.closest("#head [data-verb]");
  if (!button) return;
  const verb = button.dataset.verb;
  try {
    await doVerb(verb, [id], verb === "delete" ? () => leave("/runs") : redraw);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    at("verb-error").textContent = error.sentence;
  }
});

// ---- charts, log, samples

const log = new Log(at("log"), at("log-find"), at("log-level"));
const samples = new Samples(id, at("samples"), { unit, endings: stage !== "judge" });

// What was there before the stream; asked for until the server answers.
async function load() {
  const banner = at("banner");
  for (;;) {
    try {
      const loaded = await call("GET", `/runs/${id}/series`);
      const { rows } = await call("GET", `/runs/${id}/events?kinds=log,state,bad_line&until=${loaded.cursor}`);
      await samples.load();
      banner.hidden = true;
      return [loaded, rows];
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      banner.textContent = `Not live: ${error.sentence}`;
      banner.hidden = false;
      await new Promise((resolve) => setTimeout(resolve, 2000));
    }
  }
}

async function start() {
  const [loaded, rows] = await load();
  series = new Series(loaded);
  const charts = new Charts(at("charts"), JSON.parse(at("themes").textContent), series);
  const health = asks ? null : new Health(id, at("health"), charts);
  if (health && loaded.charts.length) await Promise.race([health.ask(), new Promise((resolve) => setTimeout(resolve, GRACE))]);
  charts.show(loaded.charts);
  showControls(loaded.charts.length > 0);
  wire(charts);
  log.add(rows);
  const loss = series.curves.get("loss");
  if (loss) {
    const began = series.attempts.at(-1);
    loss.step.slice(-PACE).forEach((step, index, all) => {
      noteStep(began.began - began.offset + loss.seconds[loss.seconds.length - all.length + index], step);
    });
    series.latest = began.began - began.offset + loss.seconds.at(-1);
    series.tokens = loss.tokens.at(-1);
    showProgress(loss.step.at(-1));
  }
  showAttempt();
  at("live").dataset.step = loss?.step.at(-1) ?? "";
  if (loaded.cursor > headEvent()) redraw(); // what happened before the cursor, the stream does not tell
  new RunStream({ [id]: loaded.cursor }, (events) => take(events, charts, health));
  globalThis.preflab = { series, log }; // for the curious, and for tests
}

async function take(events, charts, health) {
  let added = false;
  const fresh = [];
  for (const event of events) {
    if (event.kind === "metrics") {
      at("live").dataset.step = event.step;
      fresh.push(...series.add(event));
      health?.take(event.body);
      added = true;
    }
    takeProgress(event);
  }
  log.add(events);
  samples.add(events);
  if (events.some((event) => event.kind === "state")) {
    redraw();
    health?.want(0);
  }
  if (fresh.length) await listCharts(charts);
  else if (added) charts.soon();
}

// After a metric that was not there before. If the server is away now, the next one asks again.
async function listCharts(charts) {
  try {
    charts.show((await call("GET", `/runs/${id}/series`)).charts);
    showControls(true);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    setTimeout(() => listCharts(charts), 2000);
  }
}

function showControls(shown) {
  at("controls").hidden = !shown;
  at("health").hidden = asks || !shown;
}

function wire(charts) {
  at("smooth").addEventListener("input", ({ target }) => charts.set({ smooth: Number(target.value) }));
  at("axis").addEventListener("change", ({ target }) => charts.set({ axis: target.value }));
  at("log-axis").addEventListener("change", ({ target }) => charts.set({ log: target.checked }));
  at("clip").addEventListener("change", ({ target }) => charts.set({ clip: target.checked }));
}

start();
