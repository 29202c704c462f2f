// Two models' answers side by side: j and k go from prompt to prompt and on to the next page, long answers fold,
// and everything that is chosen lives in the address.

const prompts = [...document.querySelectorAll("article.compared")];
const filters = document.getElementById("answer-filters");
const FIRST = "#first"; // where one arrives from the page before
const LAST = "#last"; // and from the next

filters?.addEventListener("change", () => {
  const query = new URLSearchParams([...new FormData(filters)].filter(([, value]) => value));
  location.assign(`${filters.getAttribute("action")}?${query}`);
});

// ---- long answers

for (const panes of document.querySelectorAll(".panes[data-long]")) {
  const button = Object.assign(document.createElement("button"), { type: "button", className: "link unfold" });
  const texts = [...panes.querySelectorAll(".answer-text")];
  const fold = (folded) => {
    panes.toggleAttribute("data-folded", folded);
    for (const text of texts) text.classList.toggle("faded", text.scrollHeight > text.clientHeight + 1);
    button.textContent = folded ? "Show all of it" : "Fold";
    button.setAttribute("aria-expanded", String(!folded));
  };
  button.addEventListener("click", () => {
    fold(!panes.hasAttribute("data-folded"));
    if (panes.hasAttribute("data-folded")) panes.closest("article").scrollIntoView({ block: "nearest" });
  });
  panes.after(button);
  fold(true);
  button.hidden = !texts.some((text) => text.classList.contains("faded")); // on a wide window even this may fit
}

// ---- from prompt to prompt

let at = -1;

function show(index) {
  prompts[at]?.removeAttribute("aria-current");
  at = index;
  prompts[at].setAttribute("aria-current", "true");
  prompts[at].focus({ preventScroll: true });
  prompts[at].scrollIntoView({ block: "start" });
  history.replaceState(null, "", `#${prompts[at].id}`);
}

// The first prompt of which the top is seen, where nobody has moved yet or one has scrolled away.
function here() {
  const seen = ({ top, bottom }) => bottom > 0 && top < innerHeight;
  if (at >= 0 && seen(prompts[at].getBoundingClientRect())) return at;
  return prompts.findIndex((each) => each.getBoundingClientRect().top >= -1);
}

function move(by) {
  const from = here();
  const next = at < 0 && by > 0 && from >= 0 && prompts[from].getBoundingClientRect().top > 1 ? from : from + by;
  if (prompts[next]) return show(next);
  const link = document.querySelector(`.pages a[rel=${by > 0 ? "next" : "prev"}]`);
  if (link) location.assign(link.href + (by > 0 ? FIRST : LAST));
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
  if (event.key === "j") move(1);
  if (event.key === "k") move(-1);
});

function arrive() {
  if (!prompts.length || !location.hash) return;
  const wanted = { [FIRST]: 0, [LAST]: prompts.length - 1 }[location.hash] ?? prompts.findIndex((each) => `#${each.id}` === location.hash);
  if (wanted >= 0) show(wanted);
}
addEventListener("hashchange", arrive);
arrive();
