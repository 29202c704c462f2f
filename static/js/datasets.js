// The pages of data sets: upload, delete.

import { ApiError, call } from "./api.js";
import { nameOf, uploads } from "./upload.js";

const area = document.getElementById("drop");
if (area) {
  const name = document.getElementById("dataset-name");
  uploads(
    area,
    (file) => name.value.trim() || nameOf(file),
    (dataset) => location.assign(`/datasets/${dataset.name}/${dataset.version}`),
  );
}

document.getElementById("delete-dataset")?.addEventListener("click", async ({ currentTarget: button }) => {
  if (button.dataset.sure !== "yes") {
    button.dataset.sure = "yes";
    button.classList.add("danger");
    button.textContent = "Delete for good?";
    return;
  }
  try {
    await call("DELETE", `/datasets/${button.dataset.name}/${button.dataset.version}`);
    location.assign("/datasets");
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    document.getElementById("verb-error").textContent = error.sentence;
  }
});
