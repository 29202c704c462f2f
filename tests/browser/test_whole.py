"""The whole way: a file uploaded in the form, a real worker, a real training, watched until the curve is there."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import Page, expect

from tests.browser.house import House
from tests.browser.test_live import shown, stored

pytestmark = [pytest.mark.browser, pytest.mark.long]


def chats(count: int = 300) -> bytes:
    """Sums of two numbers, as chats."""
    rows = (
        {
            "messages": [
                {"role": "user", "content": f"{a} + {a % 7}?"},
                {"role": "assistant", "content": f"{a + a % 7}."},
            ]
        }
        for a in range(count)
    )
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_from_an_uploaded_file_to_a_finished_curve(tab: Page, house: House) -> None:
    with house.worker():
        tab.goto(f"{house.address}/runs/new")
        tab.get_by_label("Model").fill("new:micro")
        tab.set_input_files("#file", {"name": "sums.jsonl", "mimeType": "application/json", "buffer": chats()})
        expect(tab.get_by_label("Dataset")).to_have_value("data:sums@1")
        tab.get_by_label("Steps", exact=True).fill("30")
        tab.get_by_label("Learning rate").fill("3e-3")
        tab.get_by_label("Eval every").fill("10")
        tab.get_by_role("button", name="Launch", exact=True).click()
        tab.wait_for_url("**/runs/1")
        expect(tab.locator("#progress")).to_contain_text("finished", timeout=180_000)
        expect(tab.locator("#live")).to_have_attribute("data-step", "30")
        assert shown(tab) == stored(house, 1)
        curve = shown(tab)["value"]
        assert curve[0] is not None and curve[-1] is not None and curve[-1] < curve[0]
        expect(tab.locator("#sample-rows article")).to_have_count(3)
        expect(tab.locator("#aside")).to_contain_text("model/model.safetensors")
        tab.goto(f"{house.address}/workers")
        expect(tab.locator("#workers")).to_contain_text("idle")
        tab.goto(f"{house.address}/runs/new")
        tab.get_by_label("Model").fill("run:1")
        tab.get_by_label("Dataset").fill("data:sums@1")
        expect(tab.locator("#plan")).to_contain_text("parameters")
