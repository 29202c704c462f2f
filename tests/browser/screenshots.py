"""The README's pictures, of real runs: `python -m tests.browser.screenshots [--steps 300]` writes docs/screenshots/*.png.

Starts a house with a worker, trains small models to name the larger of two numbers, lets them answer for numbers that
they have not seen together, has a checker judge, and takes the pages in both themes.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from app.datasets import service as datasets
from app.experiments import service as experiments
from app.models import Run
from app.runs import states
from tests.browser.conftest import ARGUMENTS, CHROMIUM
from tests.browser.house import HERE, House

TARGET = HERE / "docs" / "screenshots"


OWNER = "larger-numbers"
LAST = 1 << 60  # a step that no run reaches: until it has finished
NUMBERS = range(100)
QUESTIONS, ASKED = 2400, 400


def bring_data(house: House) -> None:
    """Pairs of numbers of which to name the larger one: some to learn from, others to answer."""
    draw = random.Random(0)
    pairs = draw.sample([(a, b) for a in NUMBERS for b in NUMBERS if a != b], QUESTIONS)
    rows = [(f"Which is more, {a} or {b}?", f"{max(a, b)}.", "near" if abs(a - b) < 10 else "far") for a, b in pairs]
    learned = [
        {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": right}]}
        for asked, right, _ in rows[ASKED:]
    ]
    new = [
        {"prompt_id": f"q{number}", "prompt": asked, "reference": right, "category": how}
        for number, (asked, right, how) in enumerate(rows[:ASKED], 1)
    ]
    for name, content in (("numbers", learned), ("new-numbers", new)):
        path = house.settings.home / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in content))
        datasets.import_file(house.database, house.settings, path, name)


def ask(house: House, models: list[str]) -> int:
    """Runs in which these models answer the new questions, and one that judges. Returns the latter."""
    with house.database.write() as session:
        owner = experiments.by_name(session, OWNER)
        assert owner is not None
        owner.question, owner.spec = "Does a third of the training do?", {"baseline": "early"}
    for model in models:
        house.launch(f"{model}-answers", OWNER, stage="respond", model=f"run:{model}", prompts="data:new-numbers",
                     max_new_tokens=12, shown_as=model)  # fmt: skip
    answers = [f"run:{model}-answers" for model in models]
    return house.launch("judge", OWNER, stage="judge", judge="checker", check="number", responses=answers)


def wait_for(house: House, run: int, step: int) -> None:
    """Until a run has reached a step, or ended."""
    while True:
        with house.database.read() as session:
            found = session.get(Run, run)
            assert found is not None and found.state != states.FAILED, found and found.error
            if found.state == states.FINISHED or found.step >= step:
                return
        time.sleep(0.2)


def take(tab: Page, house: House, name: str, path: str, theme: str) -> None:
    tab.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
    tab.goto(house.address + path)
    tab.wait_for_timeout(1200)
    tab.screenshot(path=TARGET / f"{name}-{theme}.png")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--steps", type=int, default=300)
    steps = arguments.parse_args().steps
    TARGET.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        house = House(Path(folder) / "home")
        bring_data(house)
        house.start()
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        tab = browser.new_context(viewport={"width": 1280, "height": 860}).new_page()
        tab.goto(house.login())
        common = {"dataset": "data:numbers", "max_steps": steps, "learning_rate": 3e-3, "eval_every": max(1, steps // 15),
                  "sample_every": max(1, steps // 6), "warmup_steps": steps // 15}  # fmt: skip
        first = house.launch("micro", OWNER, model="new:micro", **common)
        second = house.launch("tiny", OWNER, model="new:tiny", **common)
        house.launch("tiny-again", OWNER, model="new:tiny", seed=1, **common)
        house.launch("early", OWNER, model="new:tiny", **{**common, "max_steps": steps // 3})
        judge = ask(house, ["early", "micro", "tiny", "tiny-again"])
        try:
            with house.worker():
                wait_for(house, first, steps)
                wait_for(house, second, steps * 2 // 3)
                for theme in ("light", "dark"):
                    take(tab, house, "run", f"/runs/{second}", theme)
                    take(tab, house, "runs", "/runs", theme)
                    take(tab, house, "launch", f"/runs/new?from={second}", theme)
                    take(tab, house, "workers", "/workers", theme)
                wait_for(house, judge, LAST)
                for theme in ("light", "dark"):
                    take(tab, house, "result", "/experiments/1", theme)
                    take(tab, house, "answers", "/experiments/1/answers?model=tiny&outcome=won", theme)
        finally:
            browser.close()
            house.close()


if __name__ == "__main__":
    main()
