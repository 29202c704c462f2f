// What the curves say: asked for when there is news, shown beside the charts and in one line above them.

import { ApiError, call } from "./api.js";

const LEVELS = [["warning", "▲"], ["note", "●"], ["good", "✓"]]; // the worst first
const SOON = 2000; // milliseconds between two questions, after an eval or a sampling
const SLOW = 10_000; // and while there are only steps

// Metrics that are measured from time to time say much at once.
const isSparse = (key) => key.startsWith("eval_") || key === "kl" || key === "answer_length";

export class Health {
  constructor(run, line, charts) {
    this.run = run;
    this.line = line;
    this.charts = charts;
    this.asked = -Infinity;
    this.due = Infinity; // when to ask next, by performance.now()
    this.line.addEventListener("click", ({ target }) => target.dataset.metric && charts.find(target.dataset.metric));
    document.addEventListener("visibilitychange", () => this.wait());
  }

  async ask() {
    this.asked = performance.now();
    this.due = Infinity;
    try {
      this.show((await call("GET", `/runs/${this.run}/health`)).rows);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error; // the banner says that the server is away; the next news asks again
    }
  }

  // Takes the metrics of an event.
  take(values) {
    this.want(Object.keys(values).some(isSparse) ? SOON : SLOW);
  }

  // To be asked when so long has passed since the last time.
  want(pause) {
    const due = Math.max(performance.now() + 200, this.asked + pause);
    if (due >= this.due) return;
    this.due = due;
    this.wait();
  }

  // A page that nobody looks at asks nothing; it does once it is looked at.
  wait() {
    clearTimeout(this.timer);
    if (document.hidden || this.due === Infinity) return;
    this.timer = setTimeout(() => this.ask(), Math.max(0, this.due - performance.now()));
  }

  show(rows) {
    this.charts.say(rows);
    const groups = LEVELS.map(([level, icon]) => [level, icon, rows.filter((row) => row.level === level)]);
    const text = JSON.stringify(groups.map(([, , found]) => found.map((row) => row.title)));
    if (this.text === text) return; // what has not changed is not read out again
    this.text = text;
    this.line.replaceChildren(...groups.filter(([, , found]) => found.length).map(([level, icon, found]) => {
      const group = document.createElement("span");
      group.append(chip(level, icon, found.length), " ");
      found.forEach((row, index) => {
        const link = Object.assign(document.createElement("button"), { type: "button", className: "link", textContent: row.title });
        link.dataset.metric = row.metric;
        group.append(index ? ", " : "", link);
      });
      return group;
    }));
  }
}

function chip(level, icon, count = 1) {
  const words = count > 1 && level !== "good" ? `${count} ${level}s` : level;
  const made = Object.assign(document.createElement("span"), { className: "chip", textContent: `${icon} ${words}` });
  made.dataset.level = level;
  return made;
}

// A chart's findings: the worst level with a word in `short`, whose place is kept free, and the sentences in `said`.
export function write({ short, said }, findings) {
  const text = JSON.stringify(findings);
  if (said.dataset.text === text) return; // what stands there stays: an eye loses no place
  said.dataset.text = text;
  const odd = findings.filter((found) => found.level !== "good");
  const icon = (level) => LEVELS.find(([each]) => each === level)[1];
  short.replaceChildren(...(odd.length ? odd : findings.slice(0, 1)).flatMap((found) => [
    chip(found.level, icon(found.level)), ` ${found.title} `,
  ]));
  said.replaceChildren(...findings.map((found) => {
    const paragraph = document.createElement("p");
    const advice = Object.assign(document.createElement("span"), { className: "advice", textContent: found.advice });
    paragraph.append(found.sentence, found.advice ? " " : "", advice);
    return paragraph;
  }));
}
