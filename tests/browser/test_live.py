"""Live pages: curves grow, and nothing is missing or doubled after the server was gone."""

from __future__ import annotations

import pytest
from playwright.sync_api import APIResponse, Page, Route, expect

from app.runs import queries, series, states
from tests.browser.conftest import Console
from tests.browser.house import House

pytestmark = pytest.mark.browser

SHOWN = "() => globalThis.preflab?.series.curves.get('loss') ?? {step: [], value: []}"


def stored(house: House, run: int) -> dict[str, list[float | None]]:
    with house.database.read() as session:
        metrics, _ = series.read(session, run)
    curve = series.curves(metrics, ["loss"])["loss"]
    return {"step": list(curve.step), "value": list(curve.value)}


def wait_for_step(tab: Page, step: int) -> None:
    expect(tab.locator("#live")).to_have_attribute("data-step", str(step))


def shown(tab: Page) -> dict[str, list[float | None]]:
    curve = tab.evaluate(SHOWN)
    return {"step": curve["step"], "value": curve["value"]}


def test_the_chart_grows_while_the_run_trains(tab: Page, house: House) -> None:
    run = house.launch(name="growing", max_steps=100)
    tab.goto(f"{house.address}/runs/{run}")
    expect(tab.locator("#no-charts")).to_contain_text("begin here once the run does")
    hand = house.begin(run)
    hand.steps(1, 20, 100)
    wait_for_step(tab, 20)
    expect(tab.locator("figure.chart").first).to_contain_text("Loss")
    hand.steps(21, 45, 100)
    wait_for_step(tab, 45)
    expect(tab.locator("#steps")).to_contain_text("step 45 of 100")
    drawn = tab.locator("figure.chart .plot").first
    expect(drawn.locator(".scatterlayer .trace")).to_have_count(3)  # faint raw, smoothed, eval
    assert shown(tab) == stored(house, run)
    hand.end(states.K)
    expect(tab.locator("#progress")).to_contain_text("finished")


def test_a_run_that_starts_while_its_page_loads_is_shown_as_running(tab: Page, house: House) -> None:
    run = house.launch(name="quick", max_steps=100)

    def start_first(route: Route) -> None:
        house.begin(run).steps(1, 5, 100)
        route.continue_()

    tab.route(f"**/runs/{run}/series", start_first, times=1)
    tab.goto(f"{house.address}/runs/{run}")
    wait_for_step(tab, 5)
    expect(tab.locator("#progress")).to_have_attribute("data-state", "running")
    expect(tab.get_by_role("button", name="Stop and save")).to_be_visible()
    expect(tab.locator("#steps")).to_contain_text("step 5 of 100")


def test_an_older_answer_does_not_replace_a_newer_head(tab: Page, house: House) -> None:
    run = house.launch(name="overtaken", max_steps=100)
    tab.goto(f"{house.address}/runs/{run}")
    expect(tab.locator("#log")).to_contain_text("queued")
    held: list[tuple[Route, APIResponse]] = []
    tab.route(f"**/runs/{run}", lambda route: held.append((route, route.fetch())), times=1)
    hand = house.begin(run)
    while not held:  # the page asked for its head, and the answer says "running"
        tab.wait_for_timeout(20)
    hand.end(states.K)
    expect(tab.locator("#progress")).to_have_attribute("data-state", "finished")
    route, answer = held[0]
    assert "Stop and save" in answer.text()
    with tab.expect_request_finished(lambda request: request == route.request):
        route.fulfill(response=answer)
    tab.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    expect(tab.locator("#progress")).to_have_attribute("data-state", "finished")


def test_a_killed_server_leaves_no_gap_and_no_duplicate(tab: Page, house: House, console: Console) -> None:
    for expected in ("ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_CONNECTION_RESET", "ERR_EMPTY"):
        console.expect(expected)
    run = house.launch(name="cut-off", max_steps=500)
    hand = house.begin(run)
    hand.steps(1, 30, 500)
    tab.goto(f"{house.address}/runs/{run}")
    wait_for_step(tab, 30)
    house.kill()
    hand.steps(31, 60, 500)
    expect(tab.locator("#banner")).to_contain_text("Not live: reconnecting")
    house.start()
    wait_for_step(tab, 60)
    expect(tab.locator("#banner")).to_be_hidden()
    hand.steps(61, 80, 500)
    wait_for_step(tab, 80)
    assert shown(tab) == stored(house, run)
    log_lines = tab.evaluate("globalThis.preflab.log.lines.map((line) => line.number)")
    with house.database.read() as session:
        kept = queries.events_of(session, run, ["log", "state", "bad_line"])
    assert log_lines == [event["number"] for event in kept]


def test_a_later_attempt_replaces_what_it_goes_over_again(tab: Page, house: House) -> None:
    run = house.launch(name="again", max_steps=100)
    hand = house.begin(run)
    hand.steps(1, 40, 100)
    tab.goto(f"{house.address}/runs/{run}")
    wait_for_step(tab, 40)
    hand.end(states.G)
    hand = house.begin(run)
    hand.journal.metrics(30, eval_loss=1.0)  # what was due at the checkpoint's step comes first
    hand.steps(31, 35, 100)
    wait_for_step(tab, 35)
    assert shown(tab)["step"] == list(range(1, 36))
    assert shown(tab) == stored(house, run)
    tab.reload()
    wait_for_step(tab, 35)
    assert shown(tab) == stored(house, run)


def test_samples_have_a_slider_and_the_log_a_search(tab: Page, house: House) -> None:
    run = house.launch(name="talks")
    hand = house.begin(run)
    for step in (0, 100):
        hand.journal.sample(step, 0, "What is 1 + 1?", f"answer of step {step}", ended=True)
    hand.journal.log("a plain line")
    hand.journal.log("something is odd", "warning")
    hand.ship()
    tab.goto(f"{house.address}/runs/{run}")
    expect(tab.locator("#sample-rows")).to_contain_text("answer of step 100")
    tab.get_by_role("button", name="Earlier").click()
    expect(tab.locator("#sample-rows")).to_contain_text("answer of step 0")
    hand.journal.sample(200, 0, "What is 1 + 1?", "answer of step 200", ended=False)
    hand.ship()
    expect(tab.locator("#sample-step")).to_have_attribute("max", "2")
    expect(tab.locator("#sample-rows")).to_contain_text("answer of step 0")  # who looks back is left in peace
    tab.get_by_label("Search the log").fill("odd")
    expect(tab.locator("#log li")).to_have_count(1)
    expect(tab.locator("#log")).to_contain_text("something is odd")


def test_samples_of_a_discarded_attempt_are_not_shown(tab: Page, house: House) -> None:
    run = house.launch(name="again", max_steps=100)
    hand = house.begin(run)
    for step in (10, 20, 40):
        hand.journal.sample(step, 0, "Who?", f"first attempt, step {step}", ended=True)
        hand.steps(step, step, 100)
    tab.goto(f"{house.address}/runs/{run}")
    expect(tab.locator("#sample-rows")).to_contain_text("first attempt, step 40")
    hand.end(states.G)
    hand = house.begin(run)
    hand.steps(21, 22, 100)
    expect(tab.locator("#sample-rows")).to_contain_text("first attempt, step 20")
    expect(tab.locator("#sample-step")).to_have_attribute("max", "1")
    hand.journal.sample(30, 0, "Who?", "second attempt, step 30", ended=True)
    hand.ship()
    for _ in ("as it came", "as it is loaded"):
        expect(tab.locator("#sample-rows")).to_contain_text("second attempt, step 30")
        expect(tab.locator("#sample-step")).to_have_attribute("max", "2")
        tab.reload()


def test_the_list_is_live(tab: Page, house: House) -> None:
    first = house.launch(name="one", max_steps=50)
    tab.goto(f"{house.address}/runs")
    row = tab.locator(f'tr[data-run="{first}"]')
    expect(row).to_contain_text("queued")
    hand = house.begin(first)
    hand.steps(1, 25, 50)
    expect(row).to_contain_text("running")
    expect(row).to_contain_text("25 / 50")
    house.launch(name="two")
    expect(tab.locator("#rows tr")).to_have_count(2)
    hand.end(states.K)
    expect(row).to_contain_text("finished")
