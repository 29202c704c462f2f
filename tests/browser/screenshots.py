"""The README's pictures, of real runs: `python -m tests.browser.screenshots [--steps 300]` writes docs/screenshots/*.png.

Starts a house with a worker, trains two small models on sums, and takes the pages in both themes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from app.datasets import service as datasets
from app.models import Run
from app.runs import states
from tests.browser.conftest import ARGUMENTS, CHROMIUM
from tests.browser.house import HERE, House
from tests.browser.test_whole import chats

TARGET = HERE / "docs" / "screenshots"


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
        (house.settings.home / "sums.jsonl").write_bytes(chats(2000))
        datasets.import_file(house.database, house.settings, house.settings.home / "sums.jsonl", "sums")
        house.start()
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        tab = browser.new_context(viewport={"width": 1280, "height": 860}).new_page()
        tab.goto(house.login())
        common = {"dataset": "data:sums", "max_steps": steps, "learning_rate": 3e-3, "eval_every": max(1, steps // 15),
                  "sample_every": max(1, steps // 6), "warmup_steps": steps // 15}  # fmt: skip
        first = house.launch("micro", "sums", model="new:micro", **common)
        second = house.launch("tiny", "sums", model="new:tiny", **common)
        house.launch("tiny-again", "sums", model="new:tiny", seed=1, **common)
        try:
            with house.worker():
                wait_for(house, first, steps)
                wait_for(house, second, steps * 2 // 3)
                for theme in ("light", "dark"):
                    take(tab, house, "run", f"/runs/{second}", theme)
                    take(tab, house, "runs", "/runs", theme)
                    take(tab, house, "launch", f"/runs/new?from={second}", theme)
                    take(tab, house, "workers", "/workers", theme)
        finally:
            browser.close()
            house.close()


if __name__ == "__main__":
    main()
