// Stop, resume, retry, delete: with a dialog that says what goes.

import { ApiError, call } from "./api.js";
import { inBytes } from "./words.js";

const dialog = () => document.getElementById("confirm");

// Opens the page's dialog. `act` may fail: its sentence then stands in the dialog.
export function confirm(title, paragraphs, label, act) {
  const box = dialog();
  box.querySelector("#confirm-title").textContent = title;
  box.querySelector("#confirm-text").replaceChildren(
    ...paragraphs.map((text) => Object.assign(document.createElement("p"), { textContent: text })),
  );
  const said = box.querySelector("#confirm-error");
  said.textContent = "";
  const yes = box.querySelector("#confirm-yes");
  yes.textContent = label;
  yes.disabled = false;
  yes.onclick = async () => {
    yes.disabled = true;
    try {
      await act();
      box.close();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      said.textContent = error.sentence;
      yes.disabled = false;
    }
  };
  box.showModal();
}

const EXPLAINED = {
  stop: "It saves a checkpoint first, and can be resumed from there.",
  resume: "Go on from the last checkpoint.",
  retry: "Starts again from nothing: its checkpoints go, its log stays.",
};

// Does a verb to some runs, asking first where something is lost. Calls `done` afterwards.
export async function run(verb, ids, done) {
  if (verb === "delete") return askToDelete(ids, done);
  const act = async () => {
    for (const id of ids) await call("POST", `/runs/${id}/${verb}`);
    done();
  };
  const many = ids.length > 1 ? `${ids.length} runs` : "this run";
  if (verb === "retry") return confirm(`Retry ${many} from nothing?`, [EXPLAINED.retry], "Retry", act);
  return act();
}

async function askToDelete(ids, done) {
  const doomed = await Promise.all(ids.map((id) => call("GET", `/runs/${id}/doomed`)));
  const runs = new Map(doomed.flatMap((each) => each.runs.map((run) => [run.id, run])));
  const others = [...runs.values()].filter((run) => !ids.includes(run.id));
  const bytes = doomed.reduce((sum, each) => sum + each.bytes, 0);
  const checkpoints = doomed.reduce((sum, each) => sum + each.checkpoints, 0);
  const names = (list) => list.slice(0, 8).map((run) => run.name).join(", ") + (list.length > 8 ? ", …" : "");
  const lines = [`${names([...runs.values()].filter((run) => ids.includes(run.id)))} and everything that was recorded goes.`];
  lines.push(`On the disk: ${inBytes(bytes)}, ${checkpoints} checkpoint${checkpoints === 1 ? "" : "s"}.`);
  if (others.length) lines.push(`With it go the runs that need it: ${names(others)}.`);
  lines.push("This cannot be undone.");
  confirm(`Delete ${runs.size === 1 ? "this run" : `${runs.size} runs`}?`, lines, "Delete", async () => {
    const gone = new Set();
    for (const id of ids) {
      if (gone.has(id)) continue;
      const answer = await call("DELETE", `/runs/${id}?with_dependants=true`);
      answer.deleted.forEach((each) => gone.add(each));
    }
    done();
  });
}
