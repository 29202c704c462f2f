"""The launch form, in a browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect
from sqlmodel import select

from app.models import Dataset, Run
from tests.browser.conftest import Console
from tests.browser.house import House
from training.config import STAGES

pytestmark = pytest.mark.browser

GOOD = '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}\n'


def fill(tab: Page, house: House) -> None:
    tab.goto(f"{house.address}/runs/new")
    tab.get_by_label("Model").fill("new:tiny")
    tab.get_by_label("Dataset").fill(f"path:{house.chats()}")


def test_a_wrong_value_is_named_at_its_field_as_one_types(tab: Page, house: House) -> None:
    fill(tab, house)
    tab.get_by_label("Learning rate").fill("3")
    expect(tab.locator("#h-learning_rate")).to_have_text("Must be 1 or less. For example: 1e-4.")
    expect(tab.get_by_label("Learning rate")).to_have_attribute("aria-invalid", "true")
    tab.get_by_label("Learning rate").fill("1e-3")
    expect(tab.locator("#h-learning_rate")).to_contain_text("peak")


def test_a_wrong_value_is_named_again_by_the_server_at_launch(tab: Page, house: House, console: Console) -> None:
    console.expect("422")
    fill(tab, house)
    tab.get_by_label("Dataset").fill("data:nowhere")
    tab.get_by_role("button", name="Launch", exact=True).click()
    expect(tab.locator("#h-dataset")).to_contain_text("There is no data set “nowhere”")
    expect(tab.get_by_label("Dataset")).to_be_focused()
    with house.database.read() as session:
        assert session.exec(select(Run)).all() == []


def test_a_warning_is_no_error_and_opens_what_was_folded(tab: Page, house: House) -> None:
    fill(tab, house)
    tab.get_by_label("Steps", exact=True).fill("50")
    tab.get_by_label("Warm-up").fill("50")
    expect(tab.locator("#h-warmup_steps")).to_have_class("warning")
    expect(tab.locator("#rare")).not_to_have_attribute("open", "")
    tab.locator("#rare summary").click()
    tab.get_by_label("Micro-batch size").fill("64")
    expect(tab.locator("#h-micro_batch_size")).to_have_text("A step has only 32 examples.")


def test_the_panel_says_what_the_run_will_do_and_the_command_that_does_the_same(tab: Page, house: House) -> None:
    fill(tab, house)
    tab.get_by_label("Steps", exact=True).fill("70")
    expect(tab.locator("#plan")).to_contain_text("70")
    expect(tab.locator("#as-command")).to_contain_text("--set max_steps=70")
    tab.get_by_role("tab", name="YAML").click()
    expect(tab.locator("#as-yaml")).to_contain_text("model: new:tiny")


def test_settings_are_found_by_a_word(tab: Page, house: House) -> None:
    tab.goto(f"{house.address}/runs/new")
    tab.get_by_label("Find a setting").fill("lora")
    expect(tab.get_by_label("LoRA rank")).to_be_visible()
    expect(tab.get_by_label("Epochs")).to_be_hidden()


def test_a_double_click_launches_one_run(tab: Page, house: House) -> None:
    fill(tab, house)
    tab.get_by_label("Name").fill("once")
    tab.get_by_role("button", name="Launch", exact=True).dblclick()
    tab.wait_for_url("**/runs/1")
    with house.database.read() as session:
        assert [run.name for run in session.exec(select(Run))] == ["once"]


@pytest.mark.parametrize("stage", STAGES)
def test_the_form_of_every_stage_opens_and_takes_an_upload_where_it_takes_data(
    tab: Page, house: House, stage: str
) -> None:
    tab.goto(f"{house.address}/runs/new?stage={stage}")
    expect(tab.locator("#stage")).to_have_value(stage)
    if tab.locator("#drop").count():
        tab.set_input_files("#file", {"name": "chats.jsonl", "mimeType": "application/json", "buffer": GOOD.encode()})
        taken = tab.locator("[data-field]", has=tab.locator("#drop")).locator("[name]")
        expect(taken).to_have_value("data:chats@1")


def test_a_bad_file_is_explained_line_by_line_and_a_good_one_is_chosen(
    tab: Page, house: House, console: Console
) -> None:
    console.expect("422")
    tab.goto(f"{house.address}/runs/new")
    bad = (GOOD + '{"messages": [{"role": "user", "content": "alone"}]}\n' + "{broken\n").encode()
    tab.set_input_files("#file", {"name": "my chats.jsonl", "mimeType": "application/json", "buffer": bad})
    expect(tab.locator("#upload-status")).to_contain_text("line 2")
    expect(tab.locator("#upload-status")).to_contain_text("line 3")
    with house.database.read() as session:
        assert session.exec(select(Dataset)).all() == []
    tab.set_input_files(
        "#file", {"name": "my chats.jsonl", "mimeType": "application/json", "buffer": GOOD.encode() * 3}
    )
    expect(tab.get_by_label("Dataset")).to_have_value("data:my-chats@1")
    expect(tab.locator("#upload-status")).to_contain_text("3 chat rows")


def test_yaml_fills_the_form(tab: Page, house: House) -> None:
    tab.goto(f"{house.address}/runs/new")
    tab.get_by_role("button", name="Load YAML").click()
    tab.locator("#yaml-text").fill(
        "name: e\nruns:\n  a: {stage: sft, model: 'new:micro', dataset: 'data:x', lora_rank: 8}\n"
    )
    tab.get_by_role("button", name="Fill in the form").click()
    expect(tab.get_by_label("Model")).to_have_value("new:micro")
    expect(tab.get_by_label("LoRA rank")).to_have_value("8")
    expect(tab.get_by_label("LoRA rank")).to_be_visible()


def test_a_clone_begins_with_what_the_run_had(tab: Page, house: House) -> None:
    run = house.launch(name="first", learning_rate=3e-4, weight_decay=0.1)
    tab.goto(f"{house.address}/runs/new?from={run}")
    expect(tab.get_by_label("Learning rate")).to_have_value("0.0003")
    expect(tab.get_by_label("Weight decay")).to_be_visible()
    expect(tab.get_by_label("Name")).to_have_value("sft-1")


def test_the_form_can_be_filled_and_sent_by_keyboard_alone(tab: Page, house: House) -> None:
    tab.goto(f"{house.address}/runs/new")
    tab.get_by_label("Model").focus()
    tab.keyboard.type("new:tiny")
    tab.keyboard.press("Tab")
    tab.keyboard.type(f"path:{house.chats()}")
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/runs/1")
    with house.database.read() as session:
        assert session.get_one(Run, 1).config["model"] == "new:tiny"


PAIR = '{"prompt": "Hi", "chosen": "Hello!", "rejected": "Go away."}\n'
SAME = '{"prompt": "Bye", "chosen": "Goodbye.", "rejected": "Goodbye."}\n'


def test_a_dpo_run_is_launched_on_an_uploaded_file_of_pairs(tab: Page, house: House) -> None:
    tab.goto(f"{house.address}/runs/new")
    tab.get_by_label("Stage").select_option("dpo")
    tab.wait_for_url("**/runs/new?stage=dpo")
    tab.get_by_label("Model", exact=True).fill("new:micro")
    tab.set_input_files(
        "#file", {"name": "prefs.jsonl", "mimeType": "application/json", "buffer": (PAIR * 48 + SAME * 2).encode()}
    )
    expect(tab.get_by_label("Dataset")).to_have_value("data:prefs@1")
    expect(tab.locator("#h-dataset")).to_have_text(
        "2 pairs will be left out: chosen and rejected say the same (first: line 49)."
    )
    expect(tab.locator("#h-model")).to_contain_text("DPO from a fresh model teaches little")
    expect(tab.locator("#plan")).to_contain_text("kept for later runs")
    tab.get_by_label("Beta", exact=True).fill("0.05")
    expect(tab.locator("#as-command")).to_contain_text("--set beta=0.05")
    tab.get_by_role("button", name="Launch", exact=True).click()
    tab.wait_for_url("**/runs/1")
    with house.database.read() as session:
        run = session.get_one(Run, 1)
    assert (run.stage, run.name, run.config["beta"], run.config["dataset"]) == ("dpo", "dpo-1", 0.05, ["data:prefs@1"])


def test_the_wrong_kind_of_data_is_named_as_one_types(tab: Page, house: House) -> None:
    tab.goto(f"{house.address}/runs/new?stage=reward")
    tab.get_by_label("Dataset").fill(f"path:{house.chats()}")
    expect(tab.locator("#h-dataset")).to_contain_text("chats.jsonl holds chats; this stage trains on preferences.")


def test_what_was_set_goes_along_to_another_stages_form(tab: Page, house: House) -> None:
    tab.goto(f"{house.address}/runs/new")
    tab.get_by_label("Model").fill("hf:me/chat")
    tab.get_by_label("Experiment").fill("mine")
    tab.get_by_label("Steps", exact=True).fill("70")
    tab.locator("#rare summary").click()
    tab.get_by_label("Packing").uncheck()
    tab.get_by_label("Gradient checkpointing").check()
    tab.get_by_label("Stage").select_option("dpo")
    tab.wait_for_url("**/runs/new?stage=dpo")
    expect(tab.get_by_label("Model", exact=True)).to_have_value("hf:me/chat")
    expect(tab.get_by_label("Experiment")).to_have_value("mine")
    expect(tab.get_by_label("Steps", exact=True)).to_have_value("70")
    expect(tab.get_by_label("Gradient checkpointing")).to_be_checked()
    expect(tab.get_by_label("Learning rate")).to_have_value("5e-06")  # DPO's own default
    expect(tab.get_by_label("Name")).to_have_value("dpo-1")
    tab.reload()
    expect(tab.get_by_label("Steps", exact=True)).to_have_value("")


def test_yaml_of_another_stage_opens_that_stages_form(tab: Page, house: House) -> None:
    tab.goto(f"{house.address}/runs/new")
    tab.get_by_role("button", name="Load YAML").click()
    tab.locator("#yaml-text").fill(
        "name: e\nruns:\n  tuned: {stage: dpo, model: 'hf:me/chat', dataset: 'hf:me/prefs', margin_clamp: 20}\n"
    )
    tab.get_by_role("button", name="Fill in the form").click()
    tab.wait_for_url("**/runs/new?stage=dpo")
    expect(tab.get_by_label("Name")).to_have_value("tuned")
    expect(tab.get_by_label("Margin clamp")).to_have_value("20")
    expect(tab.get_by_label("Margin clamp")).to_be_visible()
