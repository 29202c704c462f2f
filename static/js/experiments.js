// Launching a whole experiment: a preset, or a file.

import { ApiError, call } from "./api.js";

const dialog = document.getElementById("launch-dialog");
const name = document.getElementById("launch-name");
const text = document.getElementById("launch-yaml");
const said = document.getElementById("launch-said");
const go = document.getElementById("launch-go");
let preset = "";

function open(chosen, title) {
  preset = chosen;
  said.textContent = "";
  name.value = "";
  name.placeholder = title || "as in the file";
  document.getElementById("launch-yaml-part").hidden = Boolean(chosen);
  dialog.showModal();
}

document.getElementById("load-file").addEventListener("click", () => open("", ""));
for (const button of document.querySelectorAll("[data-preset]")) {
  button.addEventListener("click", () => open(button.dataset.preset, button.dataset.name));
}
document.getElementById("launch-file").addEventListener("change", async ({ target }) => {
  if (target.files[0]) text.value = await target.files[0].text();
});

go.addEventListener("click", async () => {
  go.disabled = true;
  said.textContent = "";
  try {
    const body = preset ? { preset, name: name.value.trim() } : { yaml: text.value, name: name.value.trim() };
    const { experiment } = await call("POST", "/experiments", body);
    location.assign(`/experiments/${experiment.id}`);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    said.textContent = error.sentence;
    go.disabled = false;
  }
});
