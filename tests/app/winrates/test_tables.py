"""Tables of results from what stands in the database, against numbers worked out by hand."""

import math

import pytest

from app.errors import Invalid, NotFound
from app.winrates import tables
from app.winrates.intake import take_scores
from app.winrates.rows import as_score
from tests.app.winrates.made import answer, answered, said, the, verdict

SAME = {"judge", "noise", "margin_weighted_win_rate"}  # what may differ between judges that say the same


def winrate(bring, name="e", **asked):
    with bring.database.read() as session:
        return tables.winrate(session, the(session, name), **asked)


def leaderboard(bring, name="e", **asked):
    with bring.database.read() as session:
        return tables.leaderboard(session, the(session, name), **asked)


def agreement(bring, name="e", **asked):
    with bring.database.read() as session:
        return tables.agreement(session, the(session, name), **asked)


def score(bring, scores, judge="reward:r", experiment="e"):
    """{(prompt, model): score} of a judge that scores answers one by one."""
    rows = [as_score({"prompt_id": p, "model": m, "judge": judge, "score": value}) for (p, m), value in scores.items()]
    with bring.database.write() as session:
        take_scores(session, the(session, experiment).id, "imported", rows)


def row_of(found, model):
    return next(row for row in found.rows if row["model"] == model)


def near(row):
    """The same, but for rounding."""
    return {key: pytest.approx(value, rel=1e-12) if isinstance(value, float) else value for key, value in row.items()}


def without(row, *keys):
    return {key: value for key, value in row.items() if key not in keys}


def test_a_small_table_by_hand(bring):
    """Length-controlled: at +5 characters 3 of 4 are won, at -5 one of 2: logits log 3 and 0, so the constant is
    log(3) / 2, and the rate is sqrt(3) / (1 + sqrt(3))."""
    bring.responses(
        [
            *(answer(f"p{n}", "base", "x" * 10) for n in range(6)),
            *(answer(f"p{n}", "longer", "x" * (15 if n < 4 else 5), ended=n != 0) for n in range(6)),
        ]
    )
    bring.verdicts(said("longer", "base", [1, 1, 0, 1, 1, 0]))
    found = winrate(bring, baseline="base")
    (row,) = found.rows
    assert without(row, "ci_low", "ci_high") == near(
        {
            "model": "longer",
            "n": 6,
            "wins": 4,
            "losses": 2,
            "ties": 0,
            "win_rate": 4 / 6,
            "standard_error": math.sqrt(4 * (1 / 3) ** 2 + 2 * (2 / 3) ** 2) / math.sqrt(5 * 6),
            "length_controlled_win_rate": math.sqrt(3) / (1 + math.sqrt(3)),
            "margin_weighted_win_rate": None,
            "empty_rate": 0.0,
            "ended_rate": 5 / 6,
            "mean_length": 70 / 6,
        }
    )
    z2 = 1.959963984540054**2  # Wilson
    middle, half = (4 / 6 + z2 / 12) / (1 + z2 / 6), math.sqrt(z2) / (1 + z2 / 6) * math.sqrt(8 / 216 + z2 / 144)
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((middle - half, middle + half), rel=1e-12)
    assert (found.experiment, found.prompts, found.judge, found.baseline) == ("e", "imported", "llm:j", "base")
    assert found.comparisons == [] and (found.models, found.judges) == (["base", "longer"], ["llm:j"])


def test_models_are_compared_on_the_prompts_that_both_were_judged_on(bring):
    """Differences on p0 to p4: 1, 0, 1, 1, 1; of 2^4 flips of the signs that are not 0, two reach the sum of 4."""
    bring.verdicts([*said("a", "base", [1, 1, 1, 1, 1, 0]), *said("b", "base", [0, 1, 0, 0, 0, None, 1])])
    found = winrate(bring, baseline="base")
    (compared,) = found.comparisons
    assert [row["model"] for row in found.rows] == ["a", "b"]  # the best first
    assert (compared["a"], compared["b"], compared["n"]) == ("a", "b", 5)
    assert compared["difference"] == pytest.approx(0.8) and compared["p_value"] == pytest.approx(2 / 16)
    assert compared["p_value_holm"] == compared["p_value"]
    assert compared["ci_high"] - compared["difference"] == pytest.approx(
        2.7764451051977987 * math.sqrt(0.2 / 5), rel=1e-9
    )
    assert compared["prompts_needed"] == math.ceil(((1.959963984540054 + 0.8416212335729143) ** 2) * 0.2 / 0.64)
    assert found.findings[0].startswith("a beats b by 80.0 points")


def test_lengths_ends_and_empty_answers_are_of_exactly_the_judged_prompts(bring):
    bring.responses(
        [
            *answered(["base"], 4),
            answer("p0", "m", "x" * 10, ended=True),
            answer("p1", "m", " \n", ended=False),
            answer("p2", "m", "x" * 90, ended=False),  # nobody judged this one
            answer("p3", "m", "x" * 30),  # nobody knows how it ended
        ]
    )
    bring.verdicts(said("m", "base", [1, 0, None, 0.5]))
    row = row_of(winrate(bring, baseline="base"), "m")
    assert (row["n"], row["mean_length"], row["empty_rate"], row["ended_rate"]) == (3, 14.0, 1 / 3, 0.5)


def test_without_answers_nothing_is_said_of_their_lengths(bring):
    bring.verdicts(said("m", "base", [1, 0, 1]))
    row = row_of(winrate(bring, baseline="base"), "m")
    assert [row[key] for key in ("length_controlled_win_rate", "empty_rate", "ended_rate", "mean_length")] == [None] * 4


def test_swapped_models_change_nothing(bring):
    rows = [
        *said("a", "base", [1, 0, 0.5, 0.8, 0]),
        *said("b", "base", [0, 0.25, 1, 1, 1]),
        *said("b", "a", [1, 1, 0]),
    ]
    swapped = [
        {**row, "model_a": row["model_b"], "model_b": row["model_a"], "preference": 1 - row["preference"]}
        if number % 2
        else row
        for number, row in enumerate(rows)
    ]
    bring.verdicts(rows)
    bring.verdicts([{**row, "judge": "llm:k"} for row in swapped], "e")
    bring.verdicts(swapped, "swapped")
    for asked in ({"baseline": "base"}, {"baseline": "a"}):
        one, other = winrate(bring, judge="llm:j", **asked), winrate(bring, "swapped", **asked)
        assert without(one.as_json(), "experiment") == without(other.as_json(), "experiment")
    ranks = [leaderboard(bring, judge="llm:j"), leaderboard(bring, "swapped")]
    for one, other in zip(*(rank.rows for rank in ranks), strict=True):
        assert one == near(other)
    (pair,) = agreement(bring).rows
    assert (pair["n"], pair["agreement"], pair["cohen_kappa"]) == (13, 1.0, 1.0)


def test_several_votes_on_one_prompt_are_averaged_first_but_not_in_the_ranking(bring):
    votes = [verdict("p0", "m", "base", each) for each in (1, 1, 0)]
    bring.verdicts([*votes, verdict("p0", "base", "m", 1), *said("m", "base", [None, 1])])
    row = row_of(winrate(bring, baseline="base"), "m")
    assert (row["n"], row["wins"], row["ties"], row["win_rate"]) == (2, 1, 1, 0.75)
    ranked = leaderboard(bring).rows
    assert [each["games"] for each in ranked] == [5, 5]
    assert ranked[0]["score"] == pytest.approx(3 / 5)  # 3 games of 5 won


def test_human_is_all_people_pooled(bring):
    bring.verdicts(
        [*said("m", "base", [1, 1], "human:anna"), *said("m", "base", [0, None, 1], "human:ben"),
         *said("m", "base", [0, 0, 0], "llm:j")]
    )  # fmt: skip
    found = winrate(bring, judge="human", baseline="base")
    row = row_of(found, "m")
    assert (found.judge, row["n"], row["wins"], row["ties"], row["win_rate"]) == ("human", 3, 2, 1, 2.5 / 3)
    assert found.judges == ["human", "llm:j"]
    assert row_of(winrate(bring, judge="human:anna", baseline="base"), "m")["n"] == 2
    assert row_of(winrate(bring, judge="anna", baseline="base"), "m")["n"] == 2
    pairs = {(row["judge_a"], row["judge_b"]): row for row in agreement(bring).rows}
    assert set(pairs) == {
        ("human:anna", "human:ben"),
        ("human:anna", "llm:j"),
        ("human:ben", "llm:j"),
        ("llm:j", "human"),
    }
    assert (pairs["llm:j", "human"]["n"], pairs["llm:j", "human"]["agreement"]) == (3, 0.0)
    assert pairs["human:anna", "human:ben"]["n"] == 1


SCORES = {
    "base": [1.0, 2.0, 3.0, 4.0, -1.0],
    "a": [2.0, 2.0, 1.0, 9.0, -2.0],
    "b": [0.5, 2.0, 3.5, None, 7.0],
}


def test_a_judge_that_scores_and_one_that_compares_give_the_same_where_they_say_the_same(bring):
    bring.responses(answered(SCORES, 5))
    given = {
        (f"p{n}", model): value for model, row in SCORES.items() for n, value in enumerate(row) if value is not None
    }
    score(bring, given)
    names = list(SCORES)
    bring.verdicts(
        [
            verdict(f"p{n}", one, other, (1 + (x > y) - (x < y)) / 2)
            for k, one in enumerate(names)
            for other in names[k + 1 :]
            for n, (x, y) in enumerate(zip(SCORES[one], SCORES[other], strict=True))
            if None not in (x, y)
        ]
    )
    one, other = (winrate(bring, judge=judge, baseline="base") for judge in ("reward:r", "llm:j"))
    assert [without(row, *SAME) for row in one.rows] == [without(row, *SAME) for row in other.rows]
    assert one.comparisons == other.comparisons and one.findings == other.findings
    ranks = [leaderboard(bring, judge=judge) for judge in ("reward:r", "llm:j")]
    assert [row["games"] for row in ranks[0].rows] == [row["games"] for row in ranks[1].rows]
    for left, right in zip(*(rank.rows for rank in ranks), strict=True):
        assert left == near(right)
    (pair,) = agreement(bring).rows
    assert (pair["n"], pair["agreement"], pair["cohen_kappa"]) == (13, 1.0, 1.0)


def test_a_margin_weighs_how_sure_a_judge_was(bring):
    bring.responses(answered(SCORES, 5))
    score(bring, {("p0", "base"): 0.0, ("p0", "a"): 3.0, ("p1", "base"): 1.0, ("p1", "a"): 0.0, ("p2", "a"): 7.0})
    row = row_of(winrate(bring, baseline="base"), "a")
    assert (row["n"], row["win_rate"], row["margin_weighted_win_rate"]) == (2, 0.5, 0.75)
    bring.verdicts(
        [verdict("p0", "a", "base", 1, score_a=9, score_b=8), verdict("p1", "base", "a", 1, score_a=4, score_b=1)]
    )
    row = row_of(winrate(bring, judge="llm:j", baseline="base"), "a")
    assert (row["win_rate"], row["margin_weighted_win_rate"]) == (0.5, 0.25)


def test_the_checker_says_how_many_answers_of_each_model_are_right(bring):
    bring.responses(answered(SCORES, 3))
    right = {("p0", "a"): 1.0, ("p1", "a"): 1.0, ("p2", "a"): 0.0, ("p0", "base"): 0.0, ("p1", "base"): 1.0}
    score(bring, right, judge="checker")
    found = winrate(bring, judge="checker", baseline="base")
    assert found.findings[-1] == "Right answers: a 66.7 % (2 of 3), base 50.0 % (1 of 2)."


def test_a_ranking_shows_models_without_a_score_last_and_says_why(bring):
    bring.verdicts([*said("a", "b", [1, 0, 1]), *said("a", "loser", [1, 1, 1]), *said("winner", "a", [1])])
    found = leaderboard(bring)
    assert [row["model"] for row in found.rows] == ["a", "b", "loser", "winner"]
    assert [row["elo"] is None for row in found.rows] == [False, False, True, True]
    assert found.rows[0]["score"] == pytest.approx(2 / 3) and not found.connected
    assert found.rows[0]["elo"] == pytest.approx(1000 + 400 * math.log10(math.sqrt(2)))
    assert [sentence.partition(" (")[0] for sentence in found.warnings] == [
        "Without a score: loser",
        "Without a score: winner",
    ]


def test_agreement_by_hand(bring):
    """Wins, ties and losses of five prompts: j has W W L T W, k has W L L T L. Three of five agree; by chance
    (3 x 1 + 1 x 3 + 1 x 1) / 25; without the tie two of four."""
    bring.verdicts(
        [*said("m", "o", [1, 0.9, 0, 0.5, 1], "llm:j"), *said("o", "m", [0, 1, 0.6, 0.5, 0.7], "llm:k")]
    )  # fmt: skip
    found = agreement(bring)
    assert found.rows == [
        {
            "judge_a": "llm:j",
            "judge_b": "llm:k",
            "n": 5,
            "agreement": 0.6,
            "agreement_without_ties": 0.5,
            "cohen_kappa": pytest.approx((0.6 - 7 / 25) / (1 - 7 / 25)),
        }
    ]
    # Krippendorff: 2 of 5 pairs differ; of 10 opinions 4 are wins, 4 losses, 2 ties.
    assert found.krippendorff_alpha == pytest.approx(1 - 9 * (2 * 2) / (100 - 16 - 16 - 4))


def test_kappa_sees_a_prompt_as_its_first_verdict_has_it_whatever_a_third_judge_says(bring):
    """As scikit-learn has it on the file's own columns: j says 1 1 0 0 1, k says 1 0 0 0 1, so kappa is
    (4/5 - 12/25) / (13/25) = 8/13."""
    bring.verdicts(
        [
            verdict("p0", "a", "b", 1), verdict("p1", "b", "a", 1), verdict("p2", "b", "a", 0),
            verdict("p3", "a", "b", 0), verdict("p4", "c", "a", 1),
        ]
    )  # fmt: skip
    bring.verdicts(
        [
            verdict("p0", "a", "b", 1, "llm:k"), verdict("p1", "a", "b", 1, "llm:k"), verdict("p2", "b", "a", 0, "llm:k"),
            verdict("p3", "b", "a", 1, "llm:k"), verdict("p4", "c", "a", 1, "llm:k"),
        ]
    )  # fmt: skip
    (pair,) = agreement(bring).rows
    assert (pair["n"], pair["agreement"], pair["cohen_kappa"]) == (5, 0.8, pytest.approx(8 / 13))
    bring.verdicts([verdict("p1", "a", "b", 0, "human:first"), verdict("p9", "b", "a", 0, "human:first")])
    assert pair in agreement(bring).rows


def test_a_table_is_of_one_prompt_set(bring):
    bring.verdicts(said("m", "base", [1, 1]), prompts="held_out")
    bring.verdicts(said("m", "base", [0, 0, 0]), prompts="other")
    assert winrate(bring, baseline="base").prompts == "held_out"
    found = winrate(bring, baseline="base", prompts="other")
    assert (found.rows[0]["n"], found.rows[0]["win_rate"], found.sets) == (3, 0.0, ["held_out", "other"])
    assert leaderboard(bring, prompts="other").rows[0]["games"] == 3
    assert agreement(bring, prompts="other").rows == []


def own(bring, **spec):
    """What the experiment's file says of its baseline and judge."""
    with bring.database.write() as session:
        the(session).spec = spec


def test_the_experiments_own_judge_and_baseline_are_asked_unless_others_are_named(bring):
    bring.verdicts([*said("a", "b", [1]), *said("b", "c", [1]), *said("a", "c", [0], "reward:rm")])
    own(bring, baseline="c", primary_judge="llm")
    found = winrate(bring)
    assert (found.judge, found.baseline) == ("llm:j", "c")
    assert winrate(bring, judge="rm").judge == "reward:rm"
    assert (winrate(bring, judge="reward:rm").baseline, winrate(bring, baseline="b").baseline) == ("c", "b")


def test_of_two_models_either_is_the_baseline_where_none_is_named(bring):
    bring.verdicts(said("m", "a", [1]))
    assert winrate(bring).baseline == "a"


def test_what_is_not_there_or_not_clear_is_said_with_what_there_is(bring):
    bring.responses(answered(["a", "b", "c"], 1), "unjudged")
    with pytest.raises(NotFound, match="Nobody has judged the answers of “unjudged” yet"):
        winrate(bring, "unjudged")
    with pytest.raises(NotFound, match="Nobody has judged"):
        agreement(bring, "unjudged")
    with pytest.raises(NotFound, match="Nobody has judged"):
        leaderboard(bring, "unjudged")
    bring.verdicts([*said("a", "b", [1]), *said("b", "c", [1]), *said("b", "c", [1], "human:x")])
    with pytest.raises(Invalid, match="“e” has several judges: human, llm:j") as caught:
        winrate(bring)
    assert caught.value.hint == "Say which by --judge."
    with pytest.raises(Invalid, match="“e” names no baseline, and has 3 models: a, b, c"):
        winrate(bring, judge="llm:j")
    for asked, sentence, there in (
        ({"judge": "gpt"}, "There is no judge “gpt” here.", "There are: human, llm:j."),
        ({"judge": "llm:j", "baseline": "d"}, "There is no model “d” here.", "--baseline takes one of: a, b, c."),
        ({"prompts": "x"}, "There is no prompt set “x” here.", "--prompts takes one of: imported."),
    ):
        with pytest.raises(NotFound, match=sentence) as caught:
            winrate(bring, **asked)
        assert caught.value.hint == there
    bring.verdicts(said("a", "b", [1], "llm:k"))
    with pytest.raises(Invalid, match="“llm” may be llm:j, llm:k"):
        winrate(bring, judge="llm")
    bring.verdicts(said("a", "b", [1]), prompts="second")
    with pytest.raises(Invalid, match="“e” has several prompt sets: imported, second"):
        agreement(bring)


def test_an_experiment_without_anything_says_what_makes_something(bring):
    from app.experiments import service as experiments

    with bring.database.write() as session:
        experiments.get_or_create(session, "e")
    with pytest.raises(NotFound, match="has no answers and no verdicts yet") as caught:
        winrate(bring)
    assert "respond" in caught.value.hint and "preflab import" in caught.value.hint


def test_a_judge_that_scored_one_model_alone_has_compared_nothing(bring):
    bring.responses(answered(["a", "b"], 2))
    score(bring, {("p0", "a"): 1.0, ("p1", "a"): 2.0})
    found = winrate(bring, baseline="a")
    assert (found.rows, found.comparisons, found.findings) == ([], [], [])
    assert leaderboard(bring).rows == [
        {"model": "a", "score": None, "elo": None, "ci_low": None, "ci_high": None, "games": 0}
    ]
    assert (agreement(bring).rows, agreement(bring).krippendorff_alpha) == ([], None)


def test_fifty_nine_models_have_all_their_comparisons_and_few_sentences(bring):
    models = [f"m{n:02d}" for n in range(59)]
    bring.responses(answered(["base", *models], 4))
    score(
        bring, {(f"p{n}", name): float((k * 7 + n * 3) % 61) for k, name in enumerate(["base", *models]) for n in range(4)}
    )  # fmt: skip
    found = winrate(bring, baseline="base")
    assert len(found.rows) == 59 and len(found.comparisons) == 59 * 58 // 2 and len(found.findings) <= 9
    assert len(leaderboard(bring).rows) == 60
