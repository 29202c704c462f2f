// Numbers and times in people's words: the same as app/units.py, in the reader's own time zone.

export const count = (number) => number.toLocaleString("en");

export function short(number) {
  for (const [size, unit] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "K"]]) {
    if (Math.abs(number) >= size) return `${Number((number / size).toPrecision(number < 100 * size ? 2 : 3))} ${unit}`;
  }
  return count(Math.round(number));
}

export function inBytes(number) {
  for (const [size, unit] of [[2 ** 40, "TiB"], [2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]]) {
    if (number >= size) return `${(number / size).toFixed(number < 10 * size ? 1 : 0)} ${unit}`;
  }
  return `${count(Math.round(number))} B`;
}

export function metric(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 0.01 && size < 100) return value.toFixed(4);
  return size >= 100 ? count(Math.round(value)) : String(Number(value.toPrecision(3)));
}

export function duration(seconds) {
  seconds = Math.max(0, Math.round(seconds));
  const part = (size, unit, rest) => `${Math.floor(seconds / size)} ${unit}${rest ? ` ${rest}` : ""}`;
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return part(60, "min", seconds < 600 && seconds % 60 ? `${seconds % 60} s` : "");
  if (seconds < 86400) return part(3600, "h", seconds % 3600 >= 60 ? `${Math.floor((seconds % 3600) / 60)} min` : "");
  return part(86400, "d", `${Math.floor((seconds % 86400) / 3600)} h`);
}

const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hour12: false });

export const clockTime = (unix) => clock.format(unix * 1000);

export function ago(unix) {
  const seconds = Date.now() / 1000 - unix;
  if (seconds < 10) return "now";
  if (seconds < 3600) return `${duration(seconds < 60 ? seconds : 60 * Math.round(seconds / 60))} ago`;
  if (seconds < 86400) return `${Math.round(seconds / 3600)} h ago`;
  return day.format(unix * 1000);
}

// Every <time data-unix> and <span data-from> below an element.
export function showTimes(root = document) {
  for (const element of root.querySelectorAll("time[data-unix]")) {
    const unix = Number(element.dataset.unix);
    element.textContent = ago(unix);
    element.title = exact.format(unix * 1000);
    element.dateTime = new Date(unix * 1000).toISOString();
  }
  for (const element of root.querySelectorAll("[data-from]")) {
    const end = element.dataset.to ? Number(element.dataset.to) : Date.now() / 1000;
    element.textContent = duration(end - Number(element.dataset.from));
  }
}
