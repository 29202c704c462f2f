"""The launch form as made from the config class."""

from __future__ import annotations

import itertools

import pytest

from app.cli.common import parse_sets
from app.errors import Invalid
from app.experiments import spec
from app.runs import forms
from app.runs.draft import Draft, as_command, as_yaml, config_of, from_yaml
from training.config import GROUPS, STAGES, SftConfig, parse_config

MINIMAL = {"model": "new:tiny", "dataset": "data:chats"}
LEAST: dict[str, dict[str, str]] = {
    "respond": {"model": "run:sft"},
    "judge": {"judge": "run:reward"},
    "augment": {"model": "run:sft", "dataset": "data:pairs", "judge": "run:reward"},
}  # others: MINIMAL


def field(name: str, stage: str = "sft") -> forms.FormField:
    return next(each for group in forms.form_groups(STAGES[stage]) for each in group.fields if each.name == name)


@pytest.mark.parametrize("stage", STAGES)
def test_every_field_of_a_stage_stands_once_in_the_form_with_title_and_help(stage: str) -> None:
    groups = forms.form_groups(STAGES[stage])
    names = [each.name for group in groups for each in group.fields]
    assert sorted(names) == sorted(set(STAGES[stage].model_fields) - {"stage"})
    assert [group.title for group in groups] == [title for title in GROUPS if title in {g.title for g in groups}]
    assert all(each.title and each.help for group in groups for each in group.fields)


def test_controls_follow_from_types() -> None:
    assert field("model").control == "reference" and field("model").offers == "models"
    assert field("dataset").control == "reference" and field("dataset").offers == "datasets"
    assert field("lr_schedule").choices == ("constant", "linear", "cosine")
    assert field("packing").control == "switch" and field("packing").default == "true"
    assert field("sample_prompts").control == "lines"
    assert field("max_steps").control == "number" and field("max_steps").optional and field("max_steps").whole
    assert field("learning_rate").bounds == "above 0 to 1"
    assert field("adam_beta1").bounds == "0 to below 1"
    assert field("reference_model", "dpo").offers == "models" and field("reference_model", "dpo").optional
    assert field("loss", "dpo").choices == ("sigmoid", "sigmoid_norm", "ipo")
    assert field("label_smoothing", "dpo").bounds == "0 to below 0.5"


def test_each_kind_of_reference_has_a_list_of_its_own() -> None:
    assert field("model", "respond").offers == "answerers" and field("prompts", "respond").offers == "prompts"
    assert field("judge", "judge").offers == "judges" and field("responses", "judge").offers == "responses"
    assert field("instructions", "judge").offers == ""


def test_several_with_commas_stand_on_one_line_of_the_form() -> None:
    assert field("checkpoints", "respond").control == "text"
    content = {"model": "run:sft", "checkpoints": ["100", "best"]}
    texts = forms.texts(STAGES["respond"], content)
    assert texts["checkpoints"] == "100, best"
    assert config_of(Draft("respond", texts)) == parse_config({"stage": "respond", **content})


@pytest.mark.parametrize("stage", STAGES)
def test_a_form_sent_as_it_came_is_the_default_config(stage: str) -> None:
    least = LEAST.get(stage, MINIMAL)
    texts = forms.texts(STAGES[stage], least)
    assert config_of(Draft(stage, texts)) == parse_config({"stage": stage, **least})


def test_what_is_left_empty_is_none_where_the_field_may_be_none_and_the_default_elsewhere() -> None:
    config = config_of(Draft("sft", {**MINIMAL, "max_grad_norm": "", "batch_size": " ", "max_steps": ""}))
    assert isinstance(config, SftConfig)
    assert (config.max_grad_norm, config.batch_size, config.max_steps) == (None, 32, None)


def test_lines_and_several_data_sets_survive_the_form() -> None:
    content = {"model": "new:tiny", "dataset": ["data:a", "data:b@2"], "sample_prompts": ["One?", "Two?"]}
    config = parse_config({"stage": "sft", **content})
    texts = forms.texts(SftConfig, config.model_dump(mode="json"))
    assert texts["dataset"] == "data:a, data:b@2"
    assert config_of(Draft("sft", texts)) == config


def test_typed_json_of_a_script_is_taken_as_it_is() -> None:
    config = config_of(Draft("sft", {**MINIMAL, "packing": False, "learning_rate": 3e-4, "sample_prompts": ["a"]}))
    assert isinstance(config, SftConfig)
    assert (config.packing, config.learning_rate, config.sample_prompts) == (False, 3e-4, ["a"])


ODD = {
    **MINIMAL, "learning_rate": 5e-6, "sample_prompts": ["It's 5 o'clock; what: now?", "#2"], "max_grad_norm": None,
    "packing": False, "lora_rank": 8,
}  # fmt: skip
ODD_DPO = {
    "model": "run:sft?checkpoint=last", "reference_model": "run:other/sft", "dataset": ["data:a", "data:b@2"],
    "beta": 0.015, "margin_clamp": 20, "beta_warmup_steps": 100, "label_smoothing": 0.1,
}  # fmt: skip
ODDITIES = pytest.mark.parametrize(("stage", "content"), [("sft", ODD), ("dpo", ODD_DPO)])


@ODDITIES
def test_the_command_line_says_the_same_as_the_form(stage: str, content: dict[str, object]) -> None:
    import shlex

    draft = Draft(stage, content, "odd", "exp")
    words = shlex.split(as_command(draft, config_of(draft)).replace("\\\n", " "))
    assert words[:4] == ["preflab", "launch", "--stage", stage]
    assert words[4:8] == ["--name", "odd", "--experiment", "exp"]
    sets = parse_sets([text for flag, text in itertools.pairwise(words) if flag == "--set"], example="")
    assert parse_config({"stage": stage, **sets}) == config_of(draft)


@ODDITIES
def test_the_yaml_says_the_same_as_the_form(stage: str, content: dict[str, object]) -> None:
    draft = Draft(stage, content, "odd", "exp")
    text = as_yaml(draft, config_of(draft))
    assert spec.plan(spec.parse_yaml(text))[0].config == config_of(draft)
    again = from_yaml(text)
    assert (again.stage, again.name, again.experiment) == (stage, "odd", "exp")
    assert config_of(again) == config_of(draft)


def test_a_bare_config_is_read_too_and_a_graph_is_sent_elsewhere() -> None:
    assert from_yaml("stage: sft\nmodel: new:tiny\n").content == {"model": "new:tiny"}
    with pytest.raises(Invalid, match="2 runs"):
        from_yaml("name: e\nruns:\n  a: {stage: sft}\n  b: {stage: sft}\n")
    with pytest.raises(Invalid, match="line 4"):
        from_yaml("name: e\nruns: [\n  a: {stage: sft}\n")
