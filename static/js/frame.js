// What every page has: times, the theme's switch, and live counts in the side.

import { call } from "./api.js";
import { inBytes, showTimes } from "./words.js";

const THEMES = ["system", "light", "dark"];
const REFRESH = 10_000; // milliseconds between two looks at the counts, while the page is seen

showTimes();
setInterval(showTimes, 15_000);

const button = document.getElementById("theme");
const chosen = () => localStorage.getItem("preflab-theme") || "system";
const label = () => (button.textContent = `Theme: ${chosen()}`);

if (button) {
  label();
  button.addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(chosen()) + 1) % THEMES.length];
    if (next === "system") {
      localStorage.removeItem("preflab-theme");
      delete document.documentElement.dataset.theme;
    } else {
      localStorage.setItem("preflab-theme", next);
      document.documentElement.dataset.theme = next;
    }
    label();
    document.dispatchEvent(new Event("theme"));
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => document.dispatchEvent(new Event("theme")));
}

document.getElementById("sign-out")?.addEventListener("click", async () => {
  await call("POST", "/sign-out", {});
  location.assign("/");
});

function show(frame) {
  const put = (name, text) => {
    const element = document.querySelector(`[data-frame="${name}"]`);
    if (element) element.textContent = text;
  };
  put("running", frame.running ? `${frame.running} live` : "");
  put("queued", frame.queued ? `${frame.queued} queued` : "");
  put("datasets", frame.datasets || "");
  const box = document.getElementById("device");
  if (!box) return;
  box.hidden = !frame.device;
  document.getElementById("no-worker")?.toggleAttribute("hidden", frame.workers > 0);
  if (!frame.device) return;
  const { key, utilisation, memory_used: used, memory_total: total } = frame.device;
  put("device", `${frame.worker} · ${key}`);
  box.querySelector("progress").value = utilisation || 0;
  const busy = utilisation === null || utilisation === undefined ? "" : `${Math.round(100 * utilisation)} % · `;
  put("load", total ? `${busy}${inBytes(used || 0)} of ${inBytes(total)}` : busy);
}

async function refresh() {
  if (document.hidden) return;
  try {
    show(await call("GET", "/frame"));
  } catch {
    // the page's own stream says that the server is away
  }
}

if (button) {
  refresh();
  setInterval(refresh, REFRESH);
  document.addEventListener("visibilitychange", refresh);
}
