"""The result of an experiment, in a browser: chosen by clicking, read prompt by prompt, drawn anew as judges finish."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from playwright.sync_api import Page, Route, expect

from app.runs import states
from app.winrates.intake import take_scores
from app.winrates.rows import as_score
from tests.app.winrates.made import Bring, Row, answer, answered, said, the, verdict
from tests.browser.house import House

pytestmark = pytest.mark.browser

EXPERIMENT, PROMPTS = "trial", 45
LONG_NAME = "a-model-whose-name-is-as-long-as-those-of-merged-models-often-are-v0.2-GGUF"


def bring(house: House) -> Bring:
    return Bring(house.database, house.settings.home)


def answers(models: Sequence[str]) -> list[Row]:
    """To each prompt an answer of each model: a long one to the third, none by b to the fourth."""
    rows = []
    for n in range(PROMPTS):
        for model in models:
            text = f"{model} says {n}. " * (200 if n == 2 else 3)
            more = {"prompt": f"Question {n}?", "category": ("maths", "chat")[n % 2], "ended": n % 9 > 0, "tokens": 9}
            rows.append(answer(f"p{n}", model, "" if (n, model) == (3, "b") else text, **more))
    return rows


def some_results(house: House, *more: str) -> None:
    """a, b and base by a judge of pairs and two people: a mostly wins, b is even; of b people think more."""
    bring(house).responses(answers(["base", "a", "b", *more]), EXPERIMENT)
    verdicts = [
        *said("a", "base", [1 if n % 4 else 0 for n in range(PROMPTS)]),
        *said("b", "base", [n % 2 for n in range(PROMPTS)]),
        *(row for name in more for row in said(name, "base", [0.5] * PROMPTS)),
        *said("b", "base", [1] * 12, "human:ada"),
        *said("a", "base", [0, 1] * 6, "human:ben"),
        verdict("p1", "a", "b", 0.5, reason="Neither <b>says</b> why."),
    ]
    bring(house).verdicts(verdicts, EXPERIMENT)


def scored(house: House, scores: dict[tuple[str, str], float], judging: int | None = None) -> None:
    """A judge that scores answers one by one has finished; `scores`: by prompt and model."""
    rows = [
        as_score({"prompt_id": prompt, "model": model, "judge": "reward:rm", "score": score})
        for (prompt, model), score in scores.items()
    ]
    with house.database.write() as session:
        take_scores(session, the(session, EXPERIMENT).id or 0, "imported", rows, judging)


def table(tab: Page) -> list[str]:
    """The models of the win-rate table, best first."""
    return tab.locator("#result .winrates").first.locator("td.model").all_inner_texts()


def test_judge_and_baseline_are_chosen_by_clicking_and_live_in_the_address(tab: Page, house: House) -> None:
    some_results(house)
    tab.goto(f"{house.address}/experiments/1")
    expect(tab.locator(".finding")).to_contain_text("95 % interval")
    expect(tab.locator(".choice")).to_contain_text("12 prompts")
    tab.evaluate("window.here = true")
    tab.get_by_label("Judge", exact=True).focus()
    tab.get_by_label("Judge", exact=True).select_option("llm:j")
    expect(tab.locator(".choice")).to_contain_text(f"{PROMPTS} prompts")
    assert "judge=llm%3Aj" in tab.url and [name.strip() for name in table(tab)] == ["a", "b"]
    expect(tab.get_by_label("Judge", exact=True)).to_be_focused()
    tab.get_by_label("Baseline").select_option("a")
    expect(tab.locator("#result .winrates").first).to_contain_text("base")
    assert "baseline=a" in tab.url
    assert tab.evaluate("window.here") is True  # the page was not loaded again
    tab.go_back()
    expect(tab.get_by_label("Baseline")).to_have_value("base")
    tab.reload()
    expect(tab.get_by_label("Judge", exact=True)).to_have_value("llm:j")


def test_a_rows_lost_prompts_are_read_one_after_the_other_by_keys(tab: Page, house: House) -> None:
    some_results(house)
    tab.goto(f"{house.address}/experiments/1?judge=llm:j")
    tab.get_by_role("link", name="23 lost").click()
    tab.wait_for_url("**/answers?**outcome=lost")
    expect(tab.get_by_role("heading", name="b beside base")).to_be_visible()
    articles = tab.locator("article.compared")
    expect(articles).to_have_count(20)
    expect(articles.first).to_contain_text("base is better")
    tab.keyboard.press("j")
    expect(articles.nth(0)).to_have_attribute("aria-current", "true")
    tab.keyboard.press("j")
    expect(articles.nth(1)).to_be_focused()
    assert re.search(r"#p-\d+$", tab.url)
    tab.keyboard.press("k")
    expect(articles.nth(0)).to_have_attribute("aria-current", "true")
    tab.reload()
    expect(articles.nth(0)).to_have_attribute("aria-current", "true")  # the address knows where one was
    for _ in range(19):
        tab.keyboard.press("j")
    expect(articles.nth(19)).to_have_attribute("aria-current", "true")
    tab.keyboard.press("j")
    tab.wait_for_url("**page=2**")
    expect(articles).to_have_count(3)
    expect(articles.first).to_have_attribute("aria-current", "true")
    tab.keyboard.press("k")
    tab.wait_for_url("**page=1**")
    expect(articles.nth(19)).to_have_attribute("aria-current", "true")


def test_filters_of_answers_go_together_and_stay_in_the_address(tab: Page, house: House) -> None:
    some_results(house)
    tab.goto(f"{house.address}/experiments/1/answers?model=b&baseline=base&judge=llm:j")
    tab.get_by_label("Category").select_option("chat")
    tab.wait_for_url("**category=chat**")
    tab.get_by_role("link", name=re.compile("with an empty answer")).click()
    tab.wait_for_url("**outcome=empty**")
    expect(tab.locator("article.compared")).to_have_count(1)
    expect(tab.locator(".is-empty")).to_contain_text("empty answer")
    tab.get_by_label("Baseline").select_option("a")
    tab.wait_for_url("**baseline=a**")
    expect(tab.get_by_role("heading", name="b beside a")).to_be_visible()
    assert "category=chat" in tab.url and "outcome=empty" in tab.url
    tab.get_by_role("link", name=re.compile("^all")).click()
    expect(tab.locator("article.compared").first.locator(".opinions")).to_contain_text("Neither <b>says</b> why.")


def test_a_long_answer_is_folded_and_opens(tab: Page, house: House) -> None:
    some_results(house)
    tab.goto(f"{house.address}/experiments/1/answers?model=a&baseline=base")
    third = tab.locator("article.compared").nth(2)
    unfold = third.get_by_role("button", name="Show all of it")
    height = third.evaluate("element => element.offsetHeight")
    unfold.click()
    expect(third.get_by_role("button", name="Fold")).to_have_attribute("aria-expanded", "true")
    assert third.evaluate("element => element.offsetHeight") > height + 100
    expect(tab.get_by_role("button", name="Show all of it")).to_have_count(0)  # of the short ones none is folded


def test_leaderboard_and_agreement_are_counted_when_they_are_opened(tab: Page, house: House) -> None:
    some_results(house)
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(f"{house.address}/experiments/1?judge=llm:j")
    tab.get_by_role("heading", name="Models against each other").click()
    expect(tab.locator("#fold-comparisons")).to_contain_text("a – b")
    assert not any("/leaderboard" in url or "/agreement" in url for url in asked)
    tab.get_by_role("heading", name="Leaderboard").click()
    expect(tab.locator("#fold-leaderboard tbody tr")).to_have_count(3)
    tab.get_by_role("heading", name="Agreement of judges").click()
    expect(tab.locator("#fold-agreement")).to_contain_text("human:ada and llm:j")
    tab.get_by_label("Judge", exact=True).select_option("human")
    expect(tab.locator("#fold-leaderboard")).to_contain_text("every opinion of people")
    expect(tab.locator("#fold-leaderboard tbody tr")).to_have_count(3)  # still open, and counted anew
    assert any("leaderboard?judge=human" in url for url in asked)


def test_the_result_is_drawn_as_soon_as_a_judge_run_finishes(tab: Page, house: House) -> None:
    bring(house).responses(answered(["base", "a"], 8), EXPERIMENT)
    judging = house.launch(name="rm", experiment=EXPERIMENT, stage="judge", judge="hf:me/rm")
    hand = house.begin(judging)
    tab.goto(f"{house.address}/experiments/1")
    expect(tab.locator("#result")).to_contain_text("Nobody has judged the answers yet.")
    expect(tab.locator("#result")).to_contain_text("rm ● running")
    hand.journal.progress("judging", 4, 16, "answers")
    hand.ship()
    expect(tab.locator("#rows")).to_contain_text("4 / 16")
    scores = {(f"p{n}", model): float(model == "a" and n < 7) for n in range(8) for model in ("base", "a")}
    scored(house, scores, judging)
    hand.end(states.K)
    expect(tab.locator(".finding")).to_contain_text("base wins 6.2 % against a")
    expect(tab.locator("#rows")).to_contain_text("finished")


def test_a_run_that_finished_before_the_page_could_listen_is_seen_to_have_finished(tab: Page, house: House) -> None:
    hand = house.begin(house.launch(name="quick", experiment=EXPERIMENT))

    def late(route: Route) -> None:
        if hand.open:
            hand.end(states.K)
        route.continue_()

    tab.route("**/api/v1/live*", late)
    tab.goto(f"{house.address}/experiments/1")
    expect(tab.locator("#rows")).to_contain_text("finished")


def test_the_table_is_copied_as_markdown(tab: Page, house: House) -> None:
    some_results(house)
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab.goto(f"{house.address}/experiments/1?judge=llm:j")
    tab.get_by_role("button", name="Copy as Markdown").click()
    expect(tab.get_by_role("button", name="Copied")).to_be_visible()
    text = tab.evaluate("navigator.clipboard.readText()")
    assert text.startswith("Win rate against base, judged by llm:j") and "| b | " in text


def test_a_name_that_is_markup_is_text(tab: Page, house: House) -> None:
    odd = '<img src=x onerror="window.hit = 1">'
    some_results(house, odd)
    for path in ("?judge=llm:j", "/answers?judge=llm:j&model=" + odd.replace(" ", "%20"), "/leaderboard?judge=llm:j"):
        tab.goto(f"{house.address}/experiments/1{path}")
        expect(tab.locator("main")).to_contain_text(odd)
    assert tab.evaluate("window.hit") is None


def test_nothing_overflows_in_either_theme_at_any_width(tab: Page, house: House) -> None:
    some_results(house, LONG_NAME)
    models = ("base", "a", "b", LONG_NAME)
    scored(house, {(f"p{n}", model): n * k % 5 - 2.75 for n in range(PROMPTS) for k, model in enumerate(models)})
    house.launch(name="queued-run", experiment=EXPERIMENT)
    paths = (
        "/experiments/1?judge=reward:rm", "/experiments/1?judge=human", "/experiments/1/leaderboard?judge=llm:j",
        "/experiments/1/agreement", f"/experiments/1/answers?judge=reward:rm&model={LONG_NAME}",
    )  # fmt: skip
    for theme in ("light", "dark"):
        tab.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
        for width in (1440, 1280, 1024, 390):
            tab.set_viewport_size({"width": width, "height": 900})
            for path in paths:
                tab.goto(house.address + path)
                tab.wait_for_load_state("load")
                assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), (path, width)
                wide = tab.evaluate(
                    "[...document.querySelectorAll('.winrates, .panes, .choice, .compared')]"
                    ".filter((each) => each.scrollWidth > each.parentElement.clientWidth).length"
                )
                assert wide == 0, (path, width)


def test_the_page_of_a_run_that_answers_speaks_of_answers(tab: Page, house: House) -> None:
    run = house.launch(name="answers", experiment=EXPERIMENT, stage="respond", model="hf:me/chat", prompts="hf:me/asks")
    hand = house.begin(run)
    hand.journal.status("answering")
    hand.journal.progress("answering", 20, 80, "answers")
    hand.journal.metrics(20, answer_length=31.5, answers_ended=0.9, answers_empty=0.0, tokens_per_second=900.0)
    hand.ship()
    tab.goto(f"{house.address}/runs/{run}")
    expect(tab.locator("#steps")).to_have_text(" · 20 of 80 answers")
    expect(tab.locator("figure.chart b").first).to_have_text("Answer length")
    expect(tab.locator("#axis option").first).to_have_text("answers")
    expect(tab.locator("figure.chart b", has_text="Loss")).to_have_count(0)
    expect(tab.locator("#health")).to_be_hidden()
    hand.journal.progress("answering", 60, 80, "answers")
    hand.ship()
    expect(tab.locator("#steps")).to_have_text(" · 60 of 80 answers")
    hand.journal.sample(60, 0, "What is it?", "This.", True)
    hand.ship()
    expect(tab.locator("#sample-name")).to_have_text("after 60 answers")
    hand.end(states.K)
    expect(tab.get_by_role("link", name="Its answers")).to_be_visible()
    tab.get_by_role("link", name="The experiment's result").click()
    expect(tab.locator("#result")).to_contain_text("There is no result yet")


def test_the_form_of_a_judge_offers_the_answers_of_its_experiment_alone(tab: Page, house: House) -> None:
    for name, experiment in (("ours", EXPERIMENT), ("theirs", "other")):
        house.launch(name=name, experiment=experiment, stage="respond", model="hf:me/chat", prompts="hf:me/asks")
    offered = "[...document.getElementById('responses').options].map((option) => option.value)"
    tab.goto(f"{house.address}/runs/new?stage=judge&experiment={EXPERIMENT}")
    expect(tab.get_by_label("Experiment")).to_have_value(EXPERIMENT)
    assert tab.evaluate(offered) == ["run:ours"]
    tab.get_by_label("Experiment").fill("other")
    assert tab.evaluate(offered) == ["run:theirs"]
    tab.get_by_label("Judge", exact=True).fill("checker")
    tab.get_by_label("Answers of").fill("run:theirs")
    tab.get_by_role("button", name="Launch", exact=True).click()
    tab.wait_for_url("**/runs/3")
    expect(tab.locator("#progress")).to_contain_text("waits for theirs")
