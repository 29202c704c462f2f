// Lists of runs: live cells, filters in the address, verbs for the chosen ones.

import { ApiError } from "./api.js";
import { ListStream } from "./live.js";
import { run as doVerb } from "./verbs.js";
import { count, duration, metric, short, showTimes } from "./words.js";

const MARKS = { running: "●", queued: "○", waiting: "◌", finished: "✓", failed: "✕", stopped: "■", skipped: "–" };
const ALIVE = ["running", "queued", "waiting"];
const SETTLED = 2000; // milliseconds after which a new stream has spoken of every run that is alive
const rows = () => document.getElementById("rows");
const filters = document.getElementById("filters");

// ---- live cells

// A run's box in the picture of its experiment.
function repaint(run) {
  const box = document.querySelector(`#graph [data-run="${run.id}"]`);
  if (!box) return;
  box.setAttribute("class", `box state-${run.state}`);
  box.querySelector("[data-mark]").textContent = MARKS[run.state];
  box.querySelector("[data-word]").textContent = run.state;
}

function update(run) {
  repaint(run);
  const line = rows()?.querySelector(`tr[data-run="${run.id}"]`);
  if (!line) return false;
  const cell = (name) => line.querySelector(`[data-cell="${name}"]`);
  if (line.dataset.state !== run.state) line.dataset.state = run.state;
  const state = document.createElement("span");
  state.className = `state state-${run.state}`;
  const mark = Object.assign(document.createElement("span"), { textContent: MARKS[run.state] });
  mark.setAttribute("aria-hidden", "true");
  state.append(mark, ` ${run.stopping ? "stopping" : run.state}`);
  cell("state").replaceChildren(state);
  cell("progress").querySelector("progress").value = run.fraction;
  cell("progress").querySelector("small").textContent = run.total_steps
    ? `${count(run.step)} / ${count(run.total_steps)}`
    : run.phase || "–";
  cell("loss").textContent = metric(run.loss);
  cell("eval_loss").textContent = metric(run.eval_loss);
  cell("speed").textContent = run.tokens_per_second ? short(run.tokens_per_second) : "–";
  cell("device").textContent = run.device || "–";
  if (run.started_at) {
    const span = document.createElement("span");
    span.dataset.from = run.started_at;
    if (run.finished_at) span.dataset.to = run.finished_at;
    span.textContent = duration((run.finished_at || Date.now() / 1000) - run.started_at);
    cell("duration").replaceChildren(span);
  }
  return true;
}

let pending = null;
const refreshSoon = () => (pending ??= setTimeout(refresh, 300));

// The table as the server has it now; what was ticked stays ticked.
async function refresh() {
  pending = null;
  const response = await fetch(location.href, { headers: { Accept: "text/html" } }).catch(() => null);
  if (!response?.ok) return;
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const ticked = new Set(chosen());
  const fresh = page.getElementById("table");
  const old = document.getElementById("table");
  if (!fresh || !old) return location.reload();
  old.replaceWith(document.adoptNode(fresh));
  const graph = page.getElementById("graph");
  if (graph) document.getElementById("graph")?.replaceWith(document.adoptNode(graph));
  const total = page.getElementById("total");
  if (total) document.getElementById("total")?.replaceWith(document.adoptNode(total));
  for (const box of boxes()) box.checked = ticked.has(Number(box.value));
  showTimes(document.getElementById("table"));
  tell();
}

const known = new Set(); // runs that the stream has spoken of

// Anything may have happened: what the page was drawn with is looked at again.
function lookAgain() {
  refreshSoon();
  document.dispatchEvent(new CustomEvent("runs", { detail: null }));
}

// A run that ended after the page was drawn and before the stream began is in neither.
function lookForMissed() {
  const alive = [...document.querySelectorAll("#rows tr")].filter((row) => ALIVE.includes(row.dataset.state));
  if (alive.some((row) => !known.has(Number(row.dataset.run)))) lookAgain();
}

new ListStream((runs) => {
  const page = new URLSearchParams(location.search).get("page");
  for (const run of runs) {
    const moved = !run.gone && update(run);
    if (!moved && !known.has(run.id) && (!page || page === "1")) refreshSoon(); // new, or it came into this filter
    if (run.gone) refreshSoon();
    known.add(run.id);
  }
  document.dispatchEvent(new CustomEvent("runs", { detail: runs })); // for what else stands on the page
}, (first) => (first ? setTimeout(lookForMissed, SETTLED) : lookAgain()));
setInterval(() => showTimes(), 1000);

// ---- filters

if (filters) {
  filters.addEventListener("change", (event) => event.target.type !== "search" && apply());
  filters.addEventListener("submit", (event) => {
    event.preventDefault();
    apply();
  });
  let typing = null;
  filters.elements.q.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => apply(true), 250);
  });
}

async function apply(keepFocus = false) {
  const query = new URLSearchParams([...new FormData(filters)].filter(([name, value]) => value && !(name === "sort" && value === "newest")));
  const address = `/runs${query.size ? `?${query}` : ""}`;
  if (!keepFocus) return location.assign(address);
  history.replaceState(null, "", address);
  await refresh();
}

// ---- the chosen ones

const boxes = () => [...document.querySelectorAll("#rows input[type=checkbox]")];
const chosen = () => boxes().filter((box) => box.checked).map((box) => Number(box.value));

function tell() {
  const bar = document.getElementById("chosen");
  if (!bar) return;
  const ids = chosen();
  bar.hidden = !ids.length;
  document.getElementById("chosen-count").textContent = `${ids.length} chosen`;
  const states = ids.map((id) => document.querySelector(`#rows tr[data-run="${id}"]`).dataset.state);
  const able = {
    stop: ["queued", "waiting", "running"],
    resume: ["stopped", "failed"],
    retry: ["stopped", "failed"],
    delete: ["queued", "waiting", "finished", "stopped", "failed", "skipped"],
  };
  for (const button of bar.querySelectorAll("[data-verb]")) {
    button.disabled = !states.every((state) => able[button.dataset.verb].includes(state));
  }
}

document.addEventListener("change", (event) => {
  if (event.target.id === "all") for (const box of boxes()) box.checked = event.target.checked;
  if (event.target.closest("#table")) tell();
});

for (const button of document.querySelectorAll("#chosen [data-verb]")) {
  button.addEventListener("click", async () => {
    const said = document.getElementById("chosen-error");
    said.textContent = "";
    try {
      await doVerb(button.dataset.verb, chosen(), refresh);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      said.textContent = error.sentence;
      refresh();
    }
  });
}
