// The launch form: checked as one types, with what the run will do beside it; one launch however often one clicks.

import { ApiError, call } from "./api.js";
import { copy } from "./clipboard.js";
import { nameOf, uploads } from "./upload.js";

const form = document.getElementById("launch");
const button = document.getElementById("launch-button");
const rare = document.getElementById("rare");
const stage = form.getAttribute("data-stage"); // not form.dataset: a control of that name stands in its way
const key = crypto.randomUUID?.() ?? [...crypto.getRandomValues(new Uint32Array(4))].map((n) => n.toString(16)).join("-");
const controls = [...form.querySelectorAll("[data-field] [name]")];
const touched = new Set();
const helps = new Map([...form.querySelectorAll(".said")].map((place) => [place.closest("[data-field]").dataset.field, place.innerHTML]));

const text = (control) => (control.type === "checkbox" ? String(control.checked) : control.value);
const asked = () => ({
  stage,
  name: document.getElementById("f-name").value,
  experiment: document.getElementById("f-experiment").value,
  config: Object.fromEntries(controls.map((control) => [control.name, text(control)])),
});

// ---- what is said at each field

function say(errors, warnings, all) {
  for (const row of form.querySelectorAll("[data-field]")) {
    const field = row.dataset.field;
    const control = row.querySelector("input:not([type=file]), select, textarea");
    const wrong = errors[field] && (all || touched.has(field) || text(control) !== "");
    const place = row.querySelector(".said");
    const kind = wrong ? "error" : warnings[field] ? "warning" : "help";
    const message = wrong ? errors[field] : warnings[field];
    if (kind === "help") place.innerHTML = helps.get(field);
    else {
      const span = Object.assign(document.createElement("span"), { className: kind, id: `h-${field}`, textContent: message });
      place.replaceChildren(span);
    }
    control.toggleAttribute("aria-invalid", Boolean(wrong));
    if (wrong) control.setAttribute("aria-invalid", "true");
    row.classList.toggle("changed", control.dataset.default !== undefined && text(control) !== control.dataset.default);
    if (kind !== "help" && rare.contains(row)) rare.open = true;
  }
}

// ---- what it would do

function show(answer) {
  const plan = document.getElementById("plan");
  if (answer.plan.length) {
    plan.replaceChildren(
      ...answer.plan.map(({ label, value, note }) => {
        const row = document.createElement("div");
        const fact = Object.assign(document.createElement("dd"), { textContent: value || "unknown" });
        if (!value) fact.className = "quiet";
        if (note) fact.append(Object.assign(document.createElement("small"), { textContent: note }));
        row.append(Object.assign(document.createElement("dt"), { textContent: label }), fact);
        return row;
      }),
    );
  }
  if (answer.command) {
    document.getElementById("as-command").textContent = answer.command;
    document.getElementById("as-yaml").textContent = answer.yaml;
  }
}

let waiting = null;
let running = null;

function check(delay = 250) {
  clearTimeout(waiting);
  waiting = setTimeout(async () => {
    running?.abort();
    running = new AbortController();
    try {
      const answer = await call("POST", "/runs/check", asked(), { signal: running.signal });
      say(answer.errors, answer.warnings, false);
      show(answer);
    } catch (error) {
      if (error instanceof ApiError && error.status === 422) say(error.fields, {}, false);
      else if (error.name !== "AbortError" && !(error instanceof ApiError)) throw error;
    }
  }, delay);
}

form.addEventListener("input", (event) => {
  if (event.target.type === "search" || event.target.type === "file") return;
  touched.add(event.target.closest("[data-field]")?.dataset.field);
  check();
});

// ---- what is offered: answers are judged together with those of the same experiment alone

const owner = document.getElementById("f-experiment");
const bound = [...document.querySelectorAll("datalist option[data-experiment]")].map((option) => [option, option.parentElement]);

function offer() {
  for (const [option, list] of bound) {
    if (option.dataset.experiment === (owner.value.trim() || "playground")) list.append(option);
    else option.remove();
  }
}

owner.addEventListener("input", offer);

// ---- launch

let sending = false;

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (sending) return;
  sending = true;
  button.disabled = true;
  button.textContent = "Launching…";
  const said = document.getElementById("launch-error");
  said.textContent = "";
  clearTimeout(waiting);
  try {
    const { run } = await call("POST", "/runs", asked(), { headers: { "Idempotency-Key": key } });
    location.assign(`/runs/${run.id}`);
    return; // the button stays as it is until the page is gone
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    said.textContent = error.sentence;
    say(error.fields, {}, true);
    form.querySelector('[aria-invalid="true"]')?.focus();
  }
  sending = false;
  button.disabled = false;
  button.textContent = "Launch";
});
addEventListener("pageshow", (event) => event.persisted && location.reload());

// ---- finding a setting

document.getElementById("find").addEventListener("input", ({ target }) => {
  const wanted = target.value.trim().toLowerCase();
  let found = 0;
  for (const row of form.querySelectorAll("[data-words]")) {
    row.hidden = Boolean(wanted) && !row.dataset.words.includes(wanted);
    found += row.hidden ? 0 : 1;
    if (wanted && !row.hidden && rare.contains(row)) rare.open = true;
  }
  for (const group of form.querySelectorAll("fieldset")) group.hidden = !group.querySelector("[data-words]:not([hidden])");
  document.getElementById("none-found").hidden = found > 0;
});
document.getElementById("find").addEventListener("keydown", (event) => event.key === "Enter" && event.preventDefault());

// ---- filling it in

function fill({ name, experiment, config }) {
  if (name) document.getElementById("f-name").value = name;
  if (experiment) owner.value = experiment;
  offer();
  for (const control of controls) {
    if (!(control.name in config)) continue;
    if (control.type === "checkbox") control.checked = config[control.name] === "true";
    else control.value = config[control.name];
    touched.add(control.name);
  }
  openWhatIsSet();
  check(0);
}

function openWhatIsSet() {
  if (controls.some((control) => rare.contains(control) && text(control) !== control.dataset.default)) rare.open = true;
}

const drop = document.getElementById("drop"); // beside the field that takes a data set, where the stage has one
if (drop) uploads(drop, nameOf, (dataset) => {
  const field = drop.closest("[data-field]").querySelector("[name]");
  field.value = dataset.reference;
  const option = Object.assign(document.createElement("option"), { value: dataset.reference });
  option.textContent = `${dataset.rows} ${dataset.kind} rows`;
  field.list.prepend(option);
  touched.add(field.name);
  check(0);
});

document.getElementById("preset")?.addEventListener("change", ({ target }) => {
  if (target.value) location.assign(`/runs/new?stage=${stage}&preset=${encodeURIComponent(target.value)}`);
});

// ---- another stage has another form; what was set here goes along, as far as it has such settings

const CARRIED = "preflab-launch";

function goTo(other, draft) {
  sessionStorage.setItem(CARRIED, JSON.stringify(draft));
  location.assign(`/runs/new?stage=${other}`);
}

document.getElementById("stage")?.addEventListener("change", ({ target }) => {
  const { name, experiment, config } = asked();
  const own = controls.filter((control) => text(control) !== control.dataset.default);
  goTo(target.value, {
    name: touched.has("name") ? name : "",
    experiment,
    config: Object.fromEntries(own.map((control) => [control.name, config[control.name]])),
  });
});

// ---- YAML

const dialog = document.getElementById("yaml-dialog");
const yaml = document.getElementById("yaml-text");
document.getElementById("load-yaml").addEventListener("click", () => dialog.showModal());
document.getElementById("yaml-file").addEventListener("change", async ({ target }) => {
  if (target.files[0]) yaml.value = await target.files[0].text();
});
document.getElementById("yaml-take").addEventListener("click", async () => {
  const said = document.getElementById("yaml-error");
  said.textContent = "";
  try {
    const answer = await call("POST", "/runs/read", { text: yaml.value });
    if (answer.stage !== stage) return goTo(answer.stage, answer);
    fill(answer);
    dialog.close();
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    said.textContent = error.sentence;
  }
});

// ---- the same as text

const tabs = [...document.querySelectorAll("[data-tab]")];
const choose = (chosen) => {
  for (const tab of tabs) {
    tab.setAttribute("aria-selected", String(tab === chosen));
    document.getElementById(`as-${tab.dataset.tab}`).hidden = tab !== chosen;
  }
};
for (const tab of tabs) tab.addEventListener("click", () => choose(tab));
document.getElementById("copy").addEventListener("click", ({ currentTarget }) => {
  const tab = tabs.find((each) => each.getAttribute("aria-selected") === "true");
  copy(document.getElementById(`as-${tab.dataset.tab}`).textContent, currentTarget);
});

const carried = sessionStorage.getItem(CARRIED);
sessionStorage.removeItem(CARRIED);
if (carried) fill(JSON.parse(carried));
openWhatIsSet();
offer();
check(0);
