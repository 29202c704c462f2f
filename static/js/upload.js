// Uploading a data set: with progress, and a bad file's lines shown where the file was chosen.

import { ApiError, AWAY } from "./api.js";
import { count, inBytes } from "./words.js";

const NAME = /[^A-Za-z0-9._-]+/g;

export const nameOf = (file) =>
  file.name.replace(/\.[A-Za-z0-9]+$/, "").replace(NAME, "-").replace(/^[^A-Za-z0-9]+|-+$/g, "").slice(0, 100) || "data";

function put(file, name, onProgress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch tells no progress of what is sent
    request.open("PUT", `/api/v1/datasets/${encodeURIComponent(name)}?filename=${encodeURIComponent(file.name)}`);
    request.setRequestHeader("X-Preflab", "1");
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.responseType = "json";
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onerror = () => reject(new ApiError(0, AWAY));
    request.onload = () => {
      if (request.status < 300) return resolve(request.response.dataset);
      const told = request.response?.error || { message: `The server answered ${request.status}.` };
      return reject(new ApiError(request.status, told));
    };
    request.send(file);
  });
}

function complain(status, name, error) {
  const list = document.createElement("ul");
  list.className = "problems";
  for (const [place, message] of Object.entries(error.fields)) {
    if (!place.startsWith("line ")) continue;
    const item = document.createElement("li");
    item.append(Object.assign(document.createElement("b"), { textContent: place }), ` ${message}`);
    list.append(item);
  }
  const sentence = list.children.length ? `${name} was not taken in. Correct these lines, then choose it again:` : error.sentence;
  const said = Object.assign(document.createElement("p"), { className: "error", textContent: sentence });
  status.replaceChildren(said, ...(list.children.length ? [list] : []));
}

// Wires a drop area: `nameFor(file)` says the data set's name, `done(dataset)` is called with what was made.
export function uploads(area, nameFor, done) {
  const input = area.querySelector("input[type=file]");
  const bar = area.querySelector("progress");
  const status = document.getElementById("upload-status");

  async function take(file) {
    if (!file) return;
    status.textContent = `Sending ${file.name}, ${inBytes(file.size)}…`;
    bar.hidden = false;
    bar.value = 0;
    try {
      const dataset = await put(file, nameFor(file), (share) => {
        bar.value = share;
        if (share === 1) status.textContent = "Checking every row…";
      });
      status.textContent = `${count(dataset.rows)} ${dataset.kind} rows are in ${dataset.reference}.`;
      done(dataset);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      complain(status, file.name, error);
    } finally {
      bar.hidden = true;
      input.value = "";
    }
  }

  input.addEventListener("change", () => take(input.files[0]));
  for (const kind of ["dragenter", "dragover"]) {
    area.addEventListener(kind, (event) => {
      event.preventDefault();
      area.classList.add("over");
    });
  }
  for (const kind of ["dragleave", "drop"]) area.addEventListener(kind, () => area.classList.remove("over"));
  area.addEventListener("drop", (event) => {
    event.preventDefault();
    take(event.dataTransfer.files[0]);
  });
}
