"""Each sentence that stands beside a table, in a case that calls for it and in one that does not."""

import pytest
from sqlalchemy import update
from sqlmodel import select

from app.datasets.service import import_file
from app.errors import Invalid
from app.models import Prompt, Verdict
from app.winrates import tables
from app.winrates.intake import take_verdicts
from app.winrates.rows import as_verdict
from tests.app.command import preflab
from tests.app.winrates.made import Bring, answer, answered, finish, run, said, the
from training.config import STAGES, AugmentConfig, parse_config

PAIR = b'{"prompt": "Hi", "chosen": "Hello there!", "rejected": "What?"}\n'


def warnings(database, judge="llm:j", baseline="base", prompts=""):
    with database.read() as session:
        return tables.winrate(session, the(session), judge, baseline, prompts).warnings


def told(bring, preferences, words, model="m", **asked):
    """Whether a warning with these words stands beside the table of one model."""
    bring.verdicts(said(model, "base", preferences, **asked))
    return any(words in sentence for sentence in warnings(bring.database, **asked))


EVEN = [1, 0] * 50


def test_an_ordinary_table_has_no_warnings(bring):
    bring.responses(answered(["base", "m"], 100))
    bring.verdicts(said("m", "base", EVEN))
    assert warnings(bring.database) == []


@pytest.mark.parametrize(("wins", "words"), [(95, "a stronger baseline"), (5, "a weaker baseline"), (94, ""), (6, "")])
def test_a_baseline_that_nearly_always_loses_or_wins_tells_little(bring, wins, words):
    bring.verdicts(said("m", "base", [1] * wins + [0] * (100 - wins)))
    sentences = {95: "base loses nearly always against m: ", 5: "base wins nearly always against m: "}
    assert warnings(bring.database) == ([f"{sentences[wins]}{words} would tell more."] if words else [])


def test_few_prompts_say_nothing_of_the_baseline_but_that_they_are_few(bring):
    bring.verdicts(said("m", "base", [1] * 29))
    assert warnings(bring.database) == ["29 prompts are little to go by: the intervals themselves are rough."]


def test_thirty_prompts_are_enough(bring):
    assert not told(bring, [1, 0] * 15, "little to go by")


def test_models_that_were_judged_on_fewer_prompts_are_named(bring):
    bring.verdicts([*said("m", "base", EVEN), *said("o", "base", EVEN[:99])])
    assert warnings(bring.database) == ["Not all have been judged on as many prompts: o on fewer than 100."]


@pytest.mark.parametrize(
    ("base", "sentence"),
    [
        (3, "Every answer of m is longer than base's: its rate at equal length cannot be told from these prompts."),
        (30, "Every answer of m is shorter than base's: its rate at equal length cannot be told from these prompts."),
        (10, None),
        (4, None),  # once as long
    ],
)
def test_a_rate_at_equal_length_beyond_all_lengths_is_told(bring, base, sentence):
    bring.responses(
        [*answered(["base"], 100, "x" * base), *(answer(f"p{n}", "m", "x" * (4 + n % 16)) for n in range(100))]
    )
    bring.verdicts(said("m", "base", EVEN))
    assert warnings(bring.database) == ([sentence] if sentence else [])


@pytest.mark.parametrize(("empty", "warned"), [(0, []), (1, ["1 %"]), (3, ["3 %"])])
def test_empty_answers_are_told(bring, empty, warned):
    bring.responses(
        [*answered(["base"], 101), *(answer(f"p{n}", "m", " \n" if n < empty else "Yes.") for n in range(101))]
    )
    bring.verdicts(said("m", "base", EVEN))  # nobody judged the last prompt
    assert warnings(bring.database) == [
        f"{share} of the answers of m are empty, and were judged like any other." for share in warned
    ]


def test_an_empty_answer_that_nobody_judged_is_not_told(bring):
    bring.responses([*answered(["base", "o"], 101), *answered(["m"], 100), answer("p100", "m", "")])
    bring.verdicts([*said("m", "base", EVEN), *said("o", "base", [*EVEN, 1])])
    assert not any("empty" in sentence for sentence in warnings(bring.database))


@pytest.mark.parametrize(("unended", "warned"), [(10, []), (11, ["11 %"])])
def test_answers_that_never_ended_are_told_of_the_baseline_too(bring, unended, warned):
    bring.responses([*answered(["m"], 100), *(answer(f"p{n}", "base", "Yes.", ended=n >= unended) for n in range(100))])
    bring.verdicts(said("m", "base", EVEN))
    assert warnings(bring.database) == [
        f"{share} of the answers of base never ended: they were cut, and judged as they were." for share in warned
    ]


# The judge's own noise


def judged(database, name, judge="llm:j", prompts="imported", **last):
    """A finished run of a judge that measured so much; it said what this judge is known to have said."""
    with database.write() as session:
        config = parse_config({"stage": "judge", "judge": "api:local/j"})
        summary = {key: {"last": value} for key, value in last.items()}
        key = run(session, name, config, summary=summary).id
        of_set = select(Prompt.id).where(Prompt.set_name == prompts)
        said_here = update(Verdict).where(Verdict.judge == judge, Verdict.prompt_key.in_(of_set))
        session.execute(said_here.values(run_id=key))
        return key


@pytest.mark.parametrize(
    ("noise", "sentences"),
    [
        ({"order_disagreement": 0.2, "repeat_disagreement": 0.2, "unparsable": 0.0}, []),
        (
            {"order_disagreement": 0.31},
            ["The judge decides otherwise in 31 % of the pairs when the answers change places."],
        ),
        ({"repeat_disagreement": 0.25}, ["Asked twice, the judge decides otherwise in 25 % of the pairs."]),
        ({"unparsable": 12.0}, ["12 of the judge's replies could not be read; those pairs have no verdict."]),
    ],
)
def test_a_judge_that_contradicts_itself_is_told(bring, noise, sentences):
    bring.verdicts(said("m", "base", EVEN))
    judged(bring.database, "judge", loss=1.0, **noise)
    assert warnings(bring.database) == sentences
    with bring.database.read() as session:
        assert tables.winrate(session, the(session), baseline="base").noise == noise


def test_the_noise_is_of_the_run_whose_verdicts_stand(bring):
    bring.verdicts([*said("m", "base", EVEN), *said("m", "base", EVEN, "llm:other")])
    judged(bring.database, "first", order_disagreement=0.9)
    judged(bring.database, "second", order_disagreement=0.1)
    judged(bring.database, "third", judge="nobody", order_disagreement=0.8)  # nothing of it has come in
    assert warnings(bring.database) == []
    assert warnings(bring.database, judge="llm:other") == []
    with bring.database.read() as session:
        assert tables.winrate(session, the(session), "llm:j").noise == {"order_disagreement": 0.1}
        assert tables.winrate(session, the(session), "llm:other").noise == {}


def test_the_noise_on_another_prompt_set_is_not_of_this_one(bring):
    bring.verdicts(said("m", "base", EVEN), prompts="held_out")
    bring.verdicts([*said("m", "base", EVEN), *said("m", "base", EVEN)], prompts="data:more@1")
    judged(bring.database, "here", prompts="held_out", order_disagreement=0.1)
    judged(bring.database, "there", prompts="data:more@1", order_disagreement=0.9)
    with bring.database.read() as session:
        noise = {
            name: tables.winrate(session, the(session), prompts=name).noise for name in ("held_out", "data:more@1")
        }
    assert noise == {"held_out": {"order_disagreement": 0.1}, "data:more@1": {"order_disagreement": 0.9}}


# Who labelled what the models were trained on


@pytest.fixture
def labelled(any_database, settings, tmp_path):
    """sft (chats) -> dpo (pairs that reward:rm labelled) -> later (plain pairs); each has answered as itself."""
    (tmp_path / "pairs.jsonl").write_bytes(PAIR)
    (tmp_path / "more.jsonl").write_bytes(PAIR * 2)
    import_file(any_database, settings, tmp_path / "pairs.jsonl", "pairs", ["reward:rm", "human:anna"])
    import_file(any_database, settings, tmp_path / "more.jsonl", "pairs")
    bring = Bring(any_database, tmp_path)
    with any_database.write() as session:
        sft = run(session, "sft", parse_config({"stage": "sft", "model": "new:tiny", "dataset": "data:pairs@2"}))
        dpo = run(
            session,
            "dpo",
            parse_config({"stage": "dpo", "model": "run:sft", "dataset": ["data:pairs@2", "data:pairs@1"]}),
            [sft],
        )
        later = run(
            session, "later", parse_config({"stage": "dpo", "model": "run:dpo", "dataset": "data:pairs@2"}), [dpo]
        )
        for model in (sft, dpo, later):
            answers(session, model)
    for judge in ("reward:rm", "human:anna", "llm:j"):
        bring.verdicts([*said("dpo", "sft", EVEN, judge), *said("later", "sft", EVEN, judge)])
    return any_database


def answers(session, model):
    """A respond run of this model has answered 100 held-out prompts."""
    asking = run(
        session, f"ask-{model.name}", parse_config({"stage": "respond", "model": f"run:{model.name}"}), [model]
    )
    finish(session, the(session), answered([model.name], 100), asking.id)


def test_a_judge_that_labelled_what_a_model_learnt_from_is_told_and_of_its_descendants_too(labelled):
    (said_of_it,) = warnings(labelled, "reward:rm", "sft")
    assert said_of_it.startswith("reward:rm also labelled training data of dpo and later: its win rate may rise")
    assert "Hold it against another judge" in said_of_it
    assert warnings(labelled, "llm:j", "sft") == []


def test_people_who_labelled_are_told_one_by_one_and_pooled(labelled):
    assert warnings(labelled, "human:anna", "sft")[0].startswith("human:anna also labelled")
    assert warnings(labelled, "human", "sft")[0].startswith("People also labelled training data of dpo and later")


def test_the_judge_of_an_augment_run_labelled_what_it_made(labelled, monkeypatch):
    monkeypatch.setitem(STAGES, "augment", AugmentConfig)
    with labelled.write() as session:
        config = {"stage": "augment", "model": "run:sft", "dataset": "data:pairs@2", "judge": "api:local/j"}
        augment = run(session, "augment", parse_config(config))
        sda = run(
            session, "sda", parse_config({"stage": "dpo", "model": "run:sft", "dataset": "run:augment"}), [augment]
        )
        answers(session, sda)
    assert warnings(labelled, "llm:j", "sft") == []
    with labelled.write() as session:
        rows = [(n, as_verdict(row)) for n, row in enumerate(said("sda", "sft", EVEN))]
        take_verdicts(session, the(session).id, "held_out", rows)
    assert warnings(labelled, "llm:j", "sft")[0].startswith("llm:j also labelled training data of sda:")


def test_labels_are_given_at_the_import_of_a_data_set_and_corrected_by_another(database, tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_bytes(PAIR)

    def facts(*options):
        done = preflab("import", "dataset", str(file), "--name", "pairs", *options, "--json")
        assert done.code == 0, done.err
        return done.json["dataset"]["version"], done.json["dataset"]["facts"].get("labelled_by")

    assert facts() == (1, None)
    assert facts("--labelled-by", "reward:rm", "--labelled-by", "human:anna", "--labelled-by", "reward:rm") == (
        1,
        ["human:anna", "reward:rm"],
    )
    assert facts() == (1, ["human:anna", "reward:rm"])
    assert facts("--labelled-by", "checker") == (1, ["checker"])


@pytest.mark.parametrize("judge", ["rm", "human", "reward:", "llm:a\nb", "x" * 300])
def test_a_label_that_names_no_judge_is_refused_before_the_file_is_read(judge, database, settings, tmp_path):
    with pytest.raises(Invalid) as caught:
        import_file(database, settings, tmp_path / "pairs.jsonl", "pairs", [judge])
    assert list(caught.value.fields) == ["labelled_by"]


def test_an_upload_says_who_labelled_it(browser):
    def put(**params):
        headers = {"Content-Type": "application/octet-stream"}
        return browser.put("/api/v1/datasets/pairs", content=PAIR, params=params, headers=headers)

    assert put(labelled_by=["reward:rm", "checker"]).json()["dataset"]["facts"]["labelled_by"] == [
        "checker",
        "reward:rm",
    ]
    refused = put(labelled_by="rm")
    assert refused.status_code == 422 and "reward:<name>" in refused.json()["error"]["fields"]["labelled_by"]
