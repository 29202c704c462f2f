// The model's answers to its fixed prompts, over the steps. A later attempt replaces all that earlier ones answered
// behind its own first step, as in app/runs/samples.py.

import { ApiError, call } from "./api.js";
import { count } from "./words.js";

export class Samples {
  // `unit`: what a step is; `endings`: whether the answers are of a model that may be cut.
  constructor(run, section, { unit = "steps", endings = true } = {}) {
    this.run = run;
    this.name = (step) => (unit === "steps" ? `step ${count(step)}` : `after ${count(step)} ${unit}`);
    this.endings = endings;
    this.section = section;
    this.steps = [];
    this.attempt = 0;
    this.latest = new Map(); // answers at the newest step, by prompt
    this.slider = section.querySelector("#sample-step");
    this.slider.addEventListener("input", () => this.show(Number(this.slider.value)));
    section.querySelector("#sample-before").addEventListener("click", () => this.move(-1));
    section.querySelector("#sample-after").addEventListener("click", () => this.move(1));
  }

  async load() {
    const { steps, rows } = await call("GET", `/runs/${this.run}/samples`);
    this.steps = steps;
    this.attempt = Math.max(0, ...rows.map((event) => event.attempt));
    this.latest = new Map(rows.map((event) => [event.body.index, event]));
    this.range(true);
  }

  add(events) {
    const fresh = events.filter((event) => event.kind === "sample" || event.kind === "metrics");
    const following = Number(this.slider.value) >= this.steps.length - 1;
    let changed = false;
    for (const event of fresh) {
      if (event.attempt > this.attempt) {
        this.attempt = event.attempt;
        changed = this.dropBehind(event.step) || changed;
      }
      if (event.kind === "metrics") continue;
      changed = true;
      if (!this.steps.includes(event.step)) {
        this.steps = [...this.steps, event.step].sort((a, b) => a - b);
        if (event.step === this.steps.at(-1)) this.latest.clear();
      }
      if (event.step === this.steps.at(-1)) this.latest.set(event.body.index, event);
    }
    if (changed) this.range(following);
  }

  // True where anything was dropped. What the model answered at the step that is then the newest, the server knows.
  dropBehind(step) {
    const kept = this.steps.filter((each) => each <= step);
    if (kept.length === this.steps.length) return false;
    this.steps = kept;
    this.latest.clear();
    return true;
  }

  range(follow) {
    this.section.hidden = !this.steps.length;
    this.slider.max = Math.max(0, this.steps.length - 1);
    follow ||= Number(this.slider.value) >= this.steps.length - 1;
    if (follow && this.steps.length) {
      this.slider.value = this.steps.length - 1;
      this.show(this.steps.length - 1);
    }
  }

  move(by) {
    this.slider.value = Number(this.slider.value) + by;
    this.show(Number(this.slider.value));
  }

  async show(index) {
    const step = this.steps[index];
    this.section.querySelector("#sample-name").textContent = this.name(step);
    this.slider.setAttribute("aria-valuetext", this.name(step));
    if (index === this.steps.length - 1 && this.latest.size) return this.draw([...this.latest.values()]);
    try {
      const { rows } = await call("GET", `/runs/${this.run}/samples?step=${step}`);
      if (this.steps[Number(this.slider.value)] === step) this.draw(rows); // the slider may have moved on
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.section.querySelector("#sample-rows").textContent = error.sentence;
    }
  }

  draw(rows) {
    const box = this.section.querySelector("#sample-rows");
    box.replaceChildren(
      ...rows.sort((a, b) => a.body.index - b.body.index).map(({ body }) => {
        const article = Object.assign(document.createElement("article"), { className: "sample" });
        const said = String(body.response ?? "").trimEnd().replace(/\n{3,}/g, "\n\n"); // a young model may write little but newlines
        const answer = Object.assign(document.createElement("p"), { className: "pre answer-text", textContent: said || "(nothing)" });
        const tag = Object.assign(document.createElement("small"), { className: "tag", textContent: body.ended ? "ended by itself" : "cut" });
        article.append(Object.assign(document.createElement("p"), { className: "pre prompt-text", textContent: body.prompt }), answer, ...(this.endings ? [tag] : []));
        return article;
      }),
    );
  }
}
