"""Configs: what is wrong is named at its field, with what would be right."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.config import GROUPS, STAGES, InvalidConfig, SftConfig, parse_config

DATASETS = (
    "hf:<owner>/<name>[@<revision>][?config=..&split=..&rows=..], run:<name>[?checkpoint=best|last|<step>]"
    "[?part=pairs|remaining], data:<name>[@<version>], path:<file or folder>[?rows=..]."
)
LEAST = {"stage": "sft", "model": "hf:Qwen/Qwen2.5-0.5B", "dataset": "data:chats"}
AUGMENT = {"model": "run:sft", "dataset": "data:pairs", "judge": "run:reward", "new_prompts": 0}
OF_STAGE = {"respond": {"model": "run:sft"}, "judge": {"judge": "run:reward"}, "augment": AUGMENT}


def wrong(**changes):
    with pytest.raises(InvalidConfig) as caught:
        parse_config({**LEAST, **changes})
    return caught.value.fields


def test_the_least_config_has_the_defaults_of_the_paper_where_it_gives_them():
    config = parse_config(LEAST)
    assert isinstance(config, SftConfig)
    assert (config.learning_rate, config.max_length, config.eval_fraction) == (1e-4, 512, 0.03)


def test_one_data_set_several_with_commas_and_a_list_are_all_lists():
    assert parse_config(LEAST).dataset == ["data:chats"]
    assert parse_config({**LEAST, "dataset": "data:a, data:b@2"}).dataset == ["data:a", "data:b@2"]
    assert parse_config({**LEAST, "dataset": ["data:a"]}).dataset == ["data:a"]


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("learning_rate", -1, "Must be above 0. For example: 1e-4."),
        ("learning_rate", "fast", "Must be a number. For example: 1e-4."),
        ("learning_rate", float("nan"), "Must be a finite number."),
        ("max_length", 3, "Must be 8 or more. For example: 512."),
        ("batch_size", 1.5, "Must be a whole number. For example: 32."),
        ("batch_size", 10**30, "Must be 65,536 or less. For example: 32."),
        ("lr_schedule", "stairs", "Choose one of: constant, linear or cosine."),
        ("dataset", [], "Needed. For example: data:my-chats or hf:HuggingFaceTB/smol-smoltalk."),
        ("dataset", "", "Needed. For example: data:my-chats or hf:HuggingFaceTB/smol-smoltalk."),
        ("dataset", "api:x/y", "“api:x/y” cannot stand here. Use one of: " + DATASETS),
        ("epoch", 3, "There is no such setting."),
    ],
)
def test_a_wrong_value_is_named_at_its_field_with_what_is_right(field, value, sentence):
    assert wrong(**{field: value}) == {field: sentence}


def test_every_wrong_field_is_named_at_once():
    assert wrong(learning_rate=0, max_length="long", model="Qwen").keys() == {"learning_rate", "max_length", "model"}


def test_early_stopping_without_an_eval_share_is_refused_at_its_field():
    assert "hold back a share" in wrong(eval_fraction=0, early_stopping_patience=3)["early_stopping_patience"]


def test_an_unknown_stage_says_which_there_are():
    with pytest.raises(InvalidConfig, match="This version has: sft"):
        parse_config({"stage": "ppo"})


def test_a_stored_config_is_read_back_as_it_was():
    config = parse_config({**LEAST, "max_steps": 7})
    assert parse_config(json.loads(config.model_dump_json())) == config


@pytest.mark.parametrize("stage", STAGES)
def test_every_field_of_every_stage_has_a_title_a_help_and_a_known_group(stage):
    for name, field in STAGES[stage].model_fields.items():
        if name == "stage":
            continue
        assert field.title, name
        assert field.description, name
        assert field.json_schema_extra["group"] in GROUPS, name


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_message_offers_as_right_is_right(stage):
    for name, field in STAGES[stage].model_fields.items():
        for right in (field.json_schema_extra or {}).get("right", "").split(" or "):
            if right:
                parse_config({**OF_STAGE.get(stage, LEAST), "stage": stage, name: right})


@given(
    st.dictionaries(st.sampled_from(list(SftConfig.model_fields)), st.none() | st.integers() | st.text() | st.floats())
)
def test_parsing_anything_gives_a_config_or_names_the_fields(changes):
    try:
        parse_config({**LEAST, **changes})
    except InvalidConfig as error:
        assert error.fields
        assert all(sentence.strip() for sentence in error.fields.values())


def test_the_checker_judges_answers_to_prompts_of_the_data_alone():
    content = {"stage": "augment", **AUGMENT, "judge": "checker"}
    assert parse_config(content).way == "checker"
    for more in ({"new_prompts": 1}, {"new_prompts": None}):
        wrong_ = {key: value for key, value in {**content, **more}.items() if value is not None}
        with pytest.raises(InvalidConfig) as caught:
            parse_config(wrong_)
        assert "no reference for the checker" in caught.value.fields["new_prompts"]


def test_answers_of_several_checkpoints_are_told_apart_by_name():
    config = parse_config({"stage": "respond", "model": "run:dpo", "checkpoints": "100, best"})
    assert config.answerers() == {"dpo@100": "run:dpo?checkpoint=100", "dpo@best": "run:dpo?checkpoint=best"}
    named = parse_config({"stage": "respond", "model": "hf:Qwen/Qwen2.5-0.5B-Instruct"})
    assert list(named.answerers()) == ["Qwen2.5-0.5B-Instruct"]
    behind = parse_config({"stage": "respond", "model": "api:local/org/model:7b", "shown_as": "teacher"})
    assert behind.answerers() == {"teacher": "api:local/org/model:7b"}


@pytest.mark.parametrize("name", ["a\nb", "a\0", "\x07"])
def test_a_name_for_tables_that_no_table_could_hold_is_refused_before_anything_is_answered(name):
    for content in ({"stage": "respond", "model": "run:dpo"}, {"stage": "judge", "judge": "checker"}):
        with pytest.raises(InvalidConfig) as caught:
            parse_config({**content, "shown_as": name})
        assert "control character" in caught.value.fields["shown_as"]


@pytest.mark.parametrize(
    ("judge", "way", "name"),
    [
        ("checker", "checker", "checker"),
        ("run:rm", "reward", "reward:rm"),
        ("hf:Skywork/Skywork-Reward-V2-Qwen3-0.6B", "reward", "reward:Skywork-Reward-V2-Qwen3-0.6B"),
        ("hf:nvidia/Llama-3.1-Nemotron-70B-Reward-HF", "nemotron", "reward:Llama-3.1-Nemotron-70B-Reward-HF"),
        ("api:nim/nvidia/llama-3.1-nemotron-70b-reward", "nemotron", "reward:nvidia/llama-3.1-nemotron-70b-reward"),
        ("api:openai/gpt-4.1", "pairwise", "llm:gpt-4.1"),
    ],
)
def test_how_it_is_judged_follows_from_the_judge(judge, way, name):
    config = parse_config({"stage": "judge", "judge": judge})
    assert (config.way, config.judge_name) == (way, name)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"judge": "run:rm", "method": "pairwise"}, "method"),
        ({"judge": "api:x/y", "method": "reward"}, "method"),
        ({"judge": "checker", "method": "reward"}, "method"),
        ({"judge": "data:x"}, "judge"),
        ({"judge": "api:x"}, "judge"),
        ({"judge": "run:rm", "repeat_fraction": 1.5}, "repeat_fraction"),
    ],
)
def test_a_judge_that_cannot_be_is_refused_at_its_field(settings, field):
    with pytest.raises(InvalidConfig) as caught:
        parse_config({"stage": "judge", **settings})
    assert list(caught.value.fields) == [field]


@pytest.mark.parametrize(
    ("model", "checkpoints"), [("hf:a/b", "best"), ("run:a?checkpoint=5", "10"), ("run:a", "first")]
)
def test_checkpoints_are_of_a_run_and_are_steps(model, checkpoints):
    with pytest.raises(InvalidConfig) as caught:
        parse_config({"stage": "respond", "model": model, "checkpoints": checkpoints})
    assert list(caught.value.fields) == ["checkpoints"]
