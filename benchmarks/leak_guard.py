"""Seconds and memory of looking through a large data set for held-out prompts.

    python -m benchmarks.leak_guard [--rows 446531] [--held-out 500] [--planted 300]

The prompts are made: requests of 24 forms whose words are drawn from the embedder's own vocabulary, common ones more
often, a third of them with a passage behind. So many of them are equal to held-out ones, and as many say the same in
another order, which the guard must find.
"""

from __future__ import annotations

import argparse
import gc
import random
import resource
import tempfile
import time
from array import array
from pathlib import Path

import psutil

from benchmarks.about import about
from training.data.differences import FUNCTION_WORDS, NUMBER_WORDS, REQUESTS
from training.data.examples import Example, SetPrompt
from training.data.held_out import HeldOutSet
from training.data.normal import content_id
from training.data.sources import Part
from training.embed import _packaged
from training.journal import Journal, Record, read_lines
from training.leak_guard import without_held_out
from training.rundir import HeldOut, RunDir, RunFile

FORMS = (
    "What is the {} of {}?", "Explain how {} works in {}.", "Write a poem about {} and {}.", "How do I {} a {} {}?",
    "Give me a recipe for {} with {}.", "Translate “{} {}” into French.", "Summarize the history of {} {}.",
    "Who was the first {} in {}?", "List {n} ways to {} the {}.", "Write a {} letter to my {}.", "Why does {} {} {}?",
    "Compare {} and {} for {}.", "I need a {} plan for {} {} and {}.", "Can you help me {} my {}?",
    "Write a function that takes a {} and returns its {}.", "What happens if {n} {} meet {n} {}?",
    "Create a table of {} {} by {}.", "Describe {} to a {}.", "In {}, what does {} mean?", "Is {} better than {}?",
    "Act as a {} and answer: {} {}?", "What would {} say about {} {}?", "Correct this: {} {} {} {}.",
    "Tell me a story of a {} who finds a {} in the {}.",
)  # fmt: skip
TURNED = ("Please help: {}", "{} Answer in full sentences, please.", "I would like to know this. {}")


class Prompts:
    """Makes prompts, the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        folder = _packaged()
        if folder is None:
            raise SystemExit("Install the extra `demo` first: the words are those of its embedder.")
        words = (folder / "vocab.txt").read_text().split()
        plain = FUNCTION_WORDS | REQUESTS | NUMBER_WORDS.keys()
        self.words = [word for word in words if word.isalpha() and len(word) > 3 and word not in plain]
        self.weights = [1 / (rank + 50) for rank in range(len(self.words))]

    def make(self, count: int) -> list[str]:
        stock = iter(self.draw.choices(self.words, self.weights, k=count * 40))
        made = []
        for _ in range(count):
            form = self.draw.choice(FORMS).replace("{n}", str(self.draw.randint(2, 99)))
            text = form.format(*(next(stock) for _ in range(form.count("{}"))))
            if self.draw.random() < 1 / 3:
                text += "\n" + " ".join(next(stock) for _ in range(self.draw.randint(10, 90))).capitalize() + "."
            made.append(text)
        return made


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the guard of held-out prompts.")
    parser.add_argument("--rows", type=int, default=446_531)
    parser.add_argument("--held-out", type=int, default=500)
    parser.add_argument("--planted", type=int, default=300)
    options = parser.parse_args()

    prompts = Prompts(seed=0)
    held_out = list(dict.fromkeys(prompts.make(options.held_out)))
    texts = prompts.make(options.rows)
    where = prompts.draw.sample(range(options.rows), 2 * options.planted)
    for index, place in enumerate(where):
        text = prompts.draw.choice(held_out)
        texts[place] = text if index % 2 else prompts.draw.choice(TURNED).format(text)
    rows = [Example([{"role": "user", "content": text}, {"role": "assistant", "content": "Yes."}]) for text in texts]
    part = Part("data:made@1", "data:made@1", None, rows, array("q", range(1, len(rows) + 1)))
    print(about("scikit-learn", "sentence-transformers", "torch"))
    print(f"{len(rows):,} rows of {sum(map(len, texts)) / len(texts):.0f} characters, {len(held_out):,} held out")
    del texts
    gc.freeze()

    before = psutil.Process().memory_info().rss
    with tempfile.TemporaryDirectory() as folder:
        begun, used = time.perf_counter(), time.process_time()
        told = guard(part, held_out, Path(folder))
        seconds, used = time.perf_counter() - begun, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        f"{seconds:.1f} s ({used:.1f} s of CPU); {(peak - before) / 1e6:,.0f} MB beside the {before / 1e6:,.0f} MB of rows"
    )
    print(told)
    print(f"planted: {options.planted} equal, {options.planted} reworded")


def guard(part: Part[Example], held_out: list[str], folder: Path) -> str:
    """Look through the rows as if the prompts came from them. Returns what the journal says of it."""
    run_dir = RunDir(folder / "run")
    run_dir.create()
    wanted = HeldOut(dataset=part.reference, path=str(folder / "held_out.jsonl"))
    run = RunFile(run_id=1, name="a", experiment="e", stage="sft", attempt=1, config={}, held_out=wanted)
    chosen = []
    for text in held_out:
        messages = Example([{"role": "user", "content": text}]).messages or []
        chosen.append(SetPrompt(content_id(messages), messages))
    journal = Journal(run_dir.journal, 1)
    without_held_out([part], HeldOutSet(chosen, part.reference, None, len(chosen), ""), run, run_dir, journal)
    journal.close()
    lines = [line.body for line in read_lines(run_dir.journal, 0).lines if isinstance(line, Record)]
    embedded = [body["facts"]["prompts"] for body in lines if body.get("phase") == "comparing what prompts mean"]
    facts = next(body["facts"] for body in lines if body.get("name") == "held-out rows taken out")
    return f"{facts['equal']:,} equal, {facts['nearly']:,} nearly equal; {sum(embedded):,} prompts embedded"


if __name__ == "__main__":
    main()
