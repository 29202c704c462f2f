// The result on an experiment's page: another judge or baseline without a reload, folds that load when they are
// opened, and drawn anew when a run has changed what there is to count.

import { copy } from "./clipboard.js";

const SOON = 300; // milliseconds: several runs that end together draw once
const ALIVE = ["running", "queued", "waiting"];

const section = () => document.getElementById("result");
const experiment = Number(section().dataset.experiment);
let drawn = section().outerHTML; // as the server made it
let asked = 0;

// A page of ours as a document; null where the server cannot be reached or says no.
async function read(address) {
  const response = await fetch(address, { headers: { Accept: "text/html" } }).catch(() => null);
  return response?.ok ? new DOMParser().parseFromString(await response.text(), "text/html") : null;
}

// Draws the result of an address. False where it could not be had. What was open stays open, focus stays where it was.
async function draw(address, wished = true) {
  const mine = ++asked;
  if (wished) section().setAttribute("aria-busy", "true"); // news come unasked: nothing dims for them
  const fresh = (await read(address))?.getElementById("result");
  if (mine !== asked) return true; // a later wish is under way
  section().removeAttribute("aria-busy");
  if (!fresh) return false;
  if (fresh.outerHTML === drawn) return true;
  const open = [...section().querySelectorAll("details[open]")].map((each) => each.id);
  const focused = section().contains(document.activeElement) ? document.activeElement.id : "";
  drawn = fresh.outerHTML;
  section().replaceWith(document.adoptNode(fresh));
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  return true;
}

// ---- judge, baseline and prompt set live in the address

document.addEventListener("change", async ({ target }) => {
  const form = target.closest?.("#choice");
  if (!form) return;
  const query = new URLSearchParams([...new FormData(form)].filter(([, value]) => value));
  const address = `${form.getAttribute("action")}?${query}`;
  if (!(await draw(address))) return location.assign(address);
  history.pushState(null, "", address);
});
addEventListener("popstate", async () => (await draw(location.href)) || location.reload());

// ---- folds

async function fill(fold) {
  const body = fold.querySelector(".fold-body");
  body.textContent = "Counting…";
  const page = await read(fold.dataset.page);
  const part = page?.getElementById(fold.dataset.part);
  if (part) body.replaceChildren(...document.adoptNode(part).childNodes);
  else {
    body.textContent = "This could not be had from the server. Close it and open it again.";
    delete fold.dataset.filled;
  }
}

document.addEventListener("toggle", ({ target }) => {
  if (!target.open || !target.dataset?.page || target.dataset.filled) return;
  target.dataset.filled = "yes";
  fill(target);
}, true); // it does not bubble

// ---- news: what list.js hears of runs

const states = new Map([...document.querySelectorAll("#rows tr[data-run]")].map((row) => [Number(row.dataset.run), row.dataset.state]));
let waiting = null;
const soon = () => (waiting ??= setTimeout(() => {
  waiting = null;
  draw(location.href, false);
}, SOON));

document.addEventListener("runs", ({ detail }) => {
  if (!detail) return soon(); // the stream was away: anything may have happened
  for (const run of detail) {
    const before = states.get(run.id);
    if (run.gone ? !before : run.experiment.id !== experiment) continue;
    states.set(run.id, run.state);
    if (run.gone || (before !== run.state && (before || !ALIVE.includes(run.state)))) soon();
  }
});

document.addEventListener("click", ({ target }) => {
  const button = target.closest("[data-copy]");
  if (button) copy(document.querySelector(button.dataset.copy).textContent, button);
});
