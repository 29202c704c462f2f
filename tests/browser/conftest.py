"""A real browser on a real server. Every page that a test opens must leave the console clean."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser.house import House

CHROMIUM = Path(os.environ.get("PREFLAB_TEST_CHROMIUM", "/usr/bin/chromium"))
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]

PATIENCE = 20_000  # milliseconds that anything on a page may take on a busy machine
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")  # its event loop must be gone before another module runs one
def browser() -> Iterator[Browser]:
    """Chromium. Skipped, with a sentence, where there is none; under CI that is a failure."""
    if not CHROMIUM.exists():
        message = f"There is no Chromium at {CHROMIUM}: name one by PREFLAB_TEST_CHROMIUM."
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A server of the test's own."""
    house = House(tmp_path / "home")
    house.start()
    yield house
    house.close()


class Console:
    """What the browser's console complained of. `expect` names what a test provokes."""

    def __init__(self, page: Page) -> None:
        self.said: list[str] = []
        self.expected: list[str] = []
        page.on("console", lambda message: self.said.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.said.append(str(error)))

    def expect(self, part: str) -> None:
        self.expected.append(part)

    @property
    def surprises(self) -> list[str]:
        return [text for text in self.said if not any(part in text for part in self.expected)]


@pytest.fixture
def console(tab: Page) -> Console:
    found: Console = tab.console  # type: ignore[attr-defined]
    return found


@pytest.fixture
def tab(browser: Browser, house: House) -> Iterator[Page]:
    """A page of a browser that is signed in."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.console = Console(page)  # type: ignore[attr-defined]
    page.goto(house.login())
    yield page
    surprises = page.console.surprises  # type: ignore[attr-defined]
    context.close()
    assert surprises == []
