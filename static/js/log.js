// The log of a run, newest first: what the trainer said, changes of state, lines that could not be read.

import { clockTime } from "./words.js";

const MOST = 5000; // lines that are kept
const SHOWN = 500; // lines that are drawn

const RANK = { info: 0, warning: 1, error: 2 };

function line(event) {
  const { kind, body } = event;
  if (kind === "log") return { level: body.level, text: body.message };
  if (kind === "bad_line") return { level: "warning", text: `A line of the journal could not be read (${body.reason}): ${body.text}` };
  const error = body.error?.message;
  const level = body.state === "failed" ? "error" : error ? "warning" : "info";
  return { level, text: error ? `${body.when}: ${error}` : body.when, state: true };
}

export class Log {
  constructor(box, find, level) {
    this.box = box;
    this.find = find;
    this.level = level;
    this.lines = [];
    find.addEventListener("input", () => this.draw());
    level.addEventListener("change", () => this.draw());
  }

  static takes(event) {
    return event.kind === "log" || event.kind === "state" || event.kind === "bad_line";
  }

  add(events) {
    const fresh = events.filter(Log.takes).map((event) => ({ ...event, ...line(event) }));
    if (!fresh.length) return;
    this.lines.push(...fresh);
    if (this.lines.length > MOST) this.lines.splice(0, this.lines.length - MOST);
    this.draw();
  }

  draw() {
    const wanted = this.find.value.trim().toLowerCase();
    const least = RANK[this.level.value] ?? 0;
    const found = this.lines.filter((each) => (RANK[each.level] ?? 0) >= least && each.text.toLowerCase().includes(wanted));
    this.box.replaceChildren(...found.slice(-SHOWN).reverse().map((each) => this.item(each)));
    if (found.length > SHOWN) this.note(`${found.length - SHOWN} older lines: search, or read journal.jsonl.`);
    if (!found.length) this.note(this.lines.length ? "No line is like this." : "Nothing yet.");
  }

  item(each) {
    const item = document.createElement("li");
    item.className = `${each.level}${each.state ? " turn" : ""}`;
    const when = Object.assign(document.createElement("time"), { textContent: clockTime(each.time) });
    when.title = new Date(each.time * 1000).toLocaleString();
    const step = Object.assign(document.createElement("span"), {
      className: "step",
      textContent: each.step === null ? "" : `step ${each.step.toLocaleString("en")}`,
    });
    const word = each.level === "info" ? "" : `${each.level}: `;
    item.append(when, step, Object.assign(document.createElement("span"), { textContent: word + each.text }));
    return item;
  }

  note(text) {
    this.box.append(Object.assign(document.createElement("li"), { className: "quiet", textContent: text }));
  }
}
