// The event stream: it goes on where it was after a lost connection, a restarted server or a long sleep, without a
// gap and without a duplicate, and says on the page when it is not live.

import { clockTime } from "./words.js";

const PATIENCE = 2000; // milliseconds without a connection before the banner shows
const SILENCE = 40_000; // the server says something every 15 s: a quieter stream is dead
const PAUSES = [300, 1000, 2000, 3000]; // milliseconds before each new try

let leaving = false;

// Goes to another page, once: a run that is deleted here is also said to be gone by its stream.
export function leave(address) {
  if (!leaving) location.assign(address);
  leaving = true;
}

class Stream {
  constructor(onMessage) {
    this.onMessage = onMessage;
    this.failures = 0;
    this.heard = Date.now();
    this.connected = false;
    this.banner = document.getElementById("banner");
    setInterval(() => this.check(), 5000);
    document.addEventListener("visibilitychange", () => this.check());
    addEventListener("online", () => this.reopen());
    addEventListener("pagehide", () => this.source?.close());
    addEventListener("pageshow", (event) => event.persisted && this.reopen());
  }

  open() {
    clearTimeout(this.retry);
    this.source?.close();
    const source = (this.source = new EventSource(this.address()));
    source.onopen = () => this.alive();
    source.addEventListener("beat", () => this.alive());
    source.addEventListener("gone", () => leave("/runs"));
    source.onmessage = (event) => {
      this.alive();
      this.onMessage(JSON.parse(event.data));
    };
    source.onerror = () => this.lost();
  }

  alive() {
    this.heard = Date.now();
    this.failures = 0;
    clearTimeout(this.late);
    this.late = null;
    this.banner.hidden = true;
    if (!this.connected) {
      this.connected = true;
      this.onConnect?.();
    }
  }

  lost() {
    this.source.close();
    this.connected = false;
    this.late ??= setTimeout(() => this.say(), PATIENCE);
    this.retry = setTimeout(() => this.open(), PAUSES[Math.min(this.failures++, PAUSES.length - 1)]);
  }

  async say() {
    this.banner.textContent = `Not live: reconnecting… What you see is from ${clockTime(this.heard / 1000)}.`;
    this.banner.hidden = false;
    const answer = await fetch("/api/v1/frame").catch(() => null);
    if (answer?.status === 401 && !this.connected) this.banner.textContent = "Not live: you are signed out. Reload to sign in.";
  }

  check() {
    if (!document.hidden && this.connected && Date.now() - this.heard > SILENCE) this.reopen();
  }

  reopen() {
    this.connected = false;
    this.late ??= setTimeout(() => this.say(), PATIENCE);
    this.open();
  }
}

// Every event of some runs behind their cursors: `onEvents` gets each exactly once, in order.
export class RunStream extends Stream {
  constructor(cursors, onEvents) {
    super(({ events }) => this.take(events));
    this.cursors = cursors;
    this.onEvents = onEvents;
    this.open();
  }

  address() {
    const runs = Object.keys(this.cursors);
    return `/api/v1/live?runs=${runs.join(",")}&cursor=${runs.map((run) => `${run}:${this.cursors[run]}`).join(",")}`;
  }

  take(events) {
    const fresh = [];
    for (const event of events) {
      if (event.number <= this.cursors[event.run]) continue; // seen before
      if (event.number > this.cursors[event.run] + 1) return this.deliver(fresh, true); // something is missing: ask again
      this.cursors[event.run] = event.number;
      fresh.push(event);
    }
    this.deliver(fresh, false);
  }

  deliver(events, again) {
    if (events.length) this.onEvents(events);
    if (again) this.reopen();
  }
}

// The rows of the runs that are alive. After a gap the page must look at all its rows again: `onConnect(first)`.
export class ListStream extends Stream {
  constructor(onRuns, onConnect) {
    super(({ runs }) => onRuns(runs));
    let first = true;
    this.onConnect = () => {
      onConnect(first);
      first = false;
    };
    this.open();
  }

  address() {
    return "/api/v1/live?runs=active";
  }
}
