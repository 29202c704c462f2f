// Queue and workers: the server draws them anew every few seconds while the page is seen.

import { showTimes } from "./words.js";

const banner = document.getElementById("banner");

setInterval(async () => {
  if (document.hidden) return;
  const response = await fetch(location.href).catch(() => null);
  banner.hidden = Boolean(response?.ok);
  if (!response?.ok) {
    banner.textContent = "Not live: the server cannot be reached.";
    return;
  }
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const fresh = page.getElementById("workers");
  if (!fresh || document.getElementById("workers").contains(document.activeElement)) return;
  document.getElementById("workers").replaceWith(document.adoptNode(fresh));
  showTimes();
}, 2000);
