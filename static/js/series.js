// A run's points in the browser: what was loaded, and what came since. The rules are those of app/runs/series.py:
// an attempt replaces all that earlier ones wrote behind its own first step; a later value of a step replaces it.

const MOST = 8000; // points of a curve before its older half is thinned

export class Series {
  constructor({ series, attempts }) {
    this.curves = new Map(Object.entries(series));
    this.attempts = attempts;
    this.tokens = null;
  }

  keys() {
    return [...this.curves.keys()];
  }

  // Takes one metrics event. Returns the keys that are new.
  add({ attempt, time, step, body }) {
    let start = this.attempts.at(-1);
    if (!start || start.attempt !== attempt) {
      const offset = start ? start.offset + (this.latest ?? start.began) - start.began : 0;
      start = { attempt, step, began: time, offset };
      this.attempts.push(start);
      this.dropBehind(step);
    }
    this.latest = time;
    if (Number.isFinite(body.tokens)) this.tokens = body.tokens;
    const fresh = [];
    for (const [key, raw] of Object.entries(body)) {
      const value = Number.isFinite(raw) ? raw : null;
      let curve = this.curves.get(key);
      if (!curve) {
        curve = { step: [], value: [], seconds: [], tokens: [] };
        this.curves.set(key, curve);
        fresh.push(key);
      }
      if (curve.step.at(-1) === step) for (const list of Object.values(curve)) list.pop();
      curve.step.push(step);
      curve.value.push(value);
      curve.seconds.push(Math.round(1000 * (time - start.began + start.offset)) / 1000);
      curve.tokens.push(this.tokens);
      if (curve.step.length > MOST) thin(curve);
    }
    return fresh;
  }

  dropBehind(step) {
    for (const curve of this.curves.values()) {
      let keep = curve.step.length;
      while (keep && curve.step[keep - 1] > step) keep--;
      for (const list of Object.values(curve)) list.length = keep;
    }
  }
}

function thin(curve) {
  const half = MOST / 2;
  for (const list of Object.values(curve)) {
    const older = list.slice(0, half).filter((_, index) => index % 2 === 0);
    list.splice(0, half, ...older);
  }
}

// Exponential moving average, corrected for its beginning; gaps stay gaps.
export function smoothed(values, weight) {
  let sum = 0;
  let mass = 0;
  return values.map((value) => {
    if (value === null) return null;
    sum = weight * sum + (1 - weight) * value;
    mass = weight * mass + (1 - weight);
    return sum / mass;
  });
}
