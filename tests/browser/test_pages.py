"""Every page, in a browser: both themes, a narrow window, verbs and their dialogs, filters in the address."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from app.auth import Role
from app.models import Run
from app.runs import service, states
from tests.browser.conftest import Console
from tests.browser.house import House

pytestmark = pytest.mark.browser


def some_runs(house: House) -> None:
    hand = house.begin(house.launch(name="alpha", max_steps=40))
    hand.steps(1, 40, 40)
    hand.end(states.K)
    hand = house.begin(house.launch(name="beta", max_steps=40))
    hand.steps(1, 12, 40)
    error = {
        "code": "diverged",
        "message": "The loss is not a finite number.",
        "hint": "Lower it.",
        "field": None,
        "step": 13,
        "checkpoint": None,
    }
    hand.end(states.H, error)
    house.launch(name="gamma", experiment="other")


def test_signing_in_by_the_link_opens_the_runs_with_a_word_on_what_to_do_first(tab: Page, house: House) -> None:
    expect(tab).to_have_url(f"{house.address}/runs")
    expect(tab.get_by_role("heading", name="Nothing has been trained yet")).to_be_visible()
    tab.get_by_role("link", name="Launch a run").first.click()
    expect(tab.get_by_role("heading", name="Launch a run")).to_be_visible()


def test_signing_out_shuts_the_door_behind_one(tab: Page, house: House, console: Console) -> None:
    console.expect("401")
    tab.get_by_role("button", name="Sign out").click()
    expect(tab.get_by_text("preflab token login").first).to_be_visible()
    tab.goto(f"{house.address}/runs")
    expect(tab.get_by_role("heading", name="Runs")).to_have_count(0)


def test_a_viewer_sees_everything_and_no_button_that_would_be_refused(tab: Page, house: House) -> None:
    some_runs(house)
    tab.context.clear_cookies()
    tab.goto(house.login(Role.VIEWER))
    expect(tab.get_by_role("link", name="alpha")).to_be_visible()
    for path in ("/runs", "/runs/1", "/runs/2", "/runs/new", "/experiments", "/datasets"):
        tab.goto(house.address + path)
        expect(tab.get_by_role("heading").first).to_be_visible()
        for name in ("Launch", "Launch a run", "Resume", "Retry from nothing", "Delete", "Launch a file"):
            expect(tab.get_by_role("button", name=name, exact=True)).to_have_count(0)
            expect(tab.get_by_role("link", name=name, exact=True)).to_have_count(0)


def test_no_page_scrolls_sideways_in_a_narrow_window_in_either_theme(tab: Page, house: House) -> None:
    some_runs(house)
    tab.set_viewport_size({"width": 390, "height": 844})
    for theme in ("light", "dark"):
        tab.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
        for path in (
            "/runs",
            "/runs/new",
            "/runs/1",
            "/runs/2",
            "/experiments",
            "/experiments/1",
            "/workers",
            "/datasets",
        ):
            tab.goto(house.address + path)
            tab.wait_for_load_state("load")
            assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), path


def test_every_column_of_the_runs_list_that_is_shown_can_be_read(tab: Page, house: House) -> None:
    some_runs(house)
    for width in (1024, 1180, 1210, 1280):
        tab.set_viewport_size({"width": width, "height": 768})
        tab.goto(f"{house.address}/runs")
        tab.wait_for_load_state("load")
        last = tab.locator("table.runs th").last.bounding_box()
        card = tab.locator("#table").bounding_box()
        assert last and card and last["x"] + last["width"] <= card["x"] + card["width"], width


def test_the_theme_is_kept_and_redraws_the_charts(tab: Page, house: House) -> None:
    some_runs(house)
    tab.goto(f"{house.address}/runs/1")
    tick = tab.locator("figure.chart .xtick text").first
    expect(tick).to_be_visible()
    light = tick.evaluate("element => getComputedStyle(element).fill")
    tab.get_by_role("button", name="Theme: system").click()
    tab.get_by_role("button", name="Theme: light").click()
    expect(tab.locator("html")).to_have_attribute("data-theme", "dark")
    assert tick.evaluate("element => getComputedStyle(element).fill") != light
    tab.reload()
    expect(tab.locator("html")).to_have_attribute("data-theme", "dark")


def test_filters_live_in_the_address(tab: Page, house: House) -> None:
    some_runs(house)
    tab.goto(f"{house.address}/runs")
    tab.get_by_label("State").select_option("failed")
    tab.wait_for_url("**/runs?state=failed")
    expect(tab.locator("#rows tr")).to_have_count(1)
    tab.get_by_label("Search by name").fill("zzz")
    expect(tab.get_by_role("heading", name="No run is like this")).to_be_visible()
    assert "q=zzz" in tab.url and "state=failed" in tab.url
    tab.goto(f"{house.address}/runs?q=gam")
    expect(tab.locator("#rows tr")).to_have_count(1)


def test_an_error_is_told_with_its_hint_and_what_to_do(tab: Page, house: House) -> None:
    some_runs(house)
    tab.goto(f"{house.address}/runs/2")
    card = tab.locator(".failure")
    expect(card).to_contain_text("The loss is not a finite number.")
    expect(card).to_contain_text("At step 13.")
    tab.get_by_role("button", name="Retry from nothing").click()
    tab.get_by_role("dialog").get_by_role("button", name="Retry").click()
    expect(tab.locator("#progress")).to_contain_text("queued")
    expect(card).to_have_count(0)


def test_stop_and_resume(tab: Page, house: House) -> None:
    run = house.launch(name="stopped")
    tab.goto(f"{house.address}/runs/{run}")
    tab.get_by_role("button", name="Take off the queue").click()
    expect(tab.locator("#progress")).to_contain_text("stopped")
    tab.get_by_role("button", name="Resume").click()
    expect(tab.locator("#progress")).to_contain_text("queued")
    house.begin(run).steps(1, 3, 10)
    tab.get_by_role("button", name="Stop and save").click()
    expect(tab.locator("#progress")).to_contain_text("stopping")
    with house.database.read() as session:
        assert service.get(session, run).desired_state == states.STOPPED


def test_deleting_says_what_goes_with_it(tab: Page, house: House) -> None:
    parent = house.launch(name="parent")
    child = house.launch(name="child", model=f"run:{parent}")
    tab.goto(f"{house.address}/runs/{parent}")
    tab.get_by_role("button", name="Delete").click()
    dialog = tab.get_by_role("dialog")
    expect(dialog).to_contain_text("the runs that need it: child")
    dialog.get_by_role("button", name="Delete").click()
    tab.wait_for_url("**/runs")
    with house.database.read() as session:
        assert session.get(Run, parent) is None and session.get(Run, child) is None
    assert not house.settings.run_folder(parent).exists()


def test_several_runs_are_chosen_and_stopped_at_once(tab: Page, house: House) -> None:
    for name in ("a", "b", "c"):
        house.launch(name=name)
    tab.goto(f"{house.address}/runs")
    tab.get_by_label("Choose a", exact=True).check()
    tab.get_by_label("Choose c", exact=True).check()
    expect(tab.locator("#chosen")).to_contain_text("2 chosen")
    tab.get_by_role("button", name="Stop and save").click()
    expect(tab.locator('tr[data-state="stopped"]')).to_have_count(2)
    expect(tab.get_by_role("button", name="Resume")).to_be_enabled()


def test_a_file_of_a_run_is_downloaded_and_nothing_outside_is(tab: Page, house: House, console: Console) -> None:
    run = house.launch(name="files")
    house.begin(run).steps(1, 2, 2)
    tab.goto(f"{house.address}/runs/{run}")
    with tab.expect_download() as waiting:
        tab.get_by_role("link", name="journal.jsonl").click()
    assert '"kind":"metrics"' in waiting.value.path().read_text()
    console.expect("404")
    answer = tab.request.get(f"{house.address}/runs/{run}/files/..%2f..%2fpreflab.db")
    assert answer.status == 404


def test_a_page_that_is_not_there_says_so(tab: Page, house: House, console: Console) -> None:
    console.expect("404")
    tab.goto(f"{house.address}/runs/999")
    expect(tab.get_by_role("heading")).to_contain_text("There is no run 999.")
    expect(tab.get_by_role("navigation", name="Main")).to_be_visible()
