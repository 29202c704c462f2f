"""References: parsed to the same text again, or refused with the form that would be right."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.references import BadReference, parse_reference


@pytest.mark.parametrize(
    "text",
    [
        "hf:Qwen/Qwen2.5-0.5B",
        "hf:HuggingFaceH4/ultrafeedback_binarized?split=train_prefs&rows=10000",
        "hf:gpt2@refs/pr/3",
        "run:sft",
        "run:demo/sft?checkpoint=best",
        "run:12?checkpoint=400",
        "data:chats@3",
        "path:/srv/models/tiny?rows=5",
        "new:tiny",
        "api:vllm/meta-llama/Llama-3",
        "checker",
    ],
)
def test_a_reference_is_written_back_as_it_was_read(text):
    assert str(parse_reference(text)) == text


def test_the_parts_of_a_hub_reference():
    found = parse_reference("hf:a/b@main?config=en&split=train&rows=7")
    assert (found.kind, found.name, found.version, found.rows) == ("hf", "a/b", "main", 7)
    assert found.options == {"config": "en", "split": "train", "rows": "7"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Qwen/Qwen2.5-0.5B", "cannot stand here"),
        ("ftp:x", "cannot stand here. Use one of: hf:"),
        ("checkers", "cannot stand here"),
        ("/srv/model", "Did you mean path:/srv/model"),
        ("hf:", "Something is missing"),
        ("hf:--help", "is no hf: name"),
        ("hf:../../etc/passwd", "is no hf: name"),
        ("hf:a/b/c", "is no hf: name"),
        ("hf:a/b@../x", "is no revision"),
        ("data:chats@0", "whole number from 1"),
        ("data:chats@latest", "whole number from 1"),
        ("run:a?checkpoint=nice", "best, last or a step"),
        ("run:a?rows=5", "is no option of run:"),
        ("hf:a/b?rows=-1", "whole number from 1"),
        ("path:/a\x00b", "no line break or other control character"),
        ("new:../x", "is no new: name"),
    ],
)
def test_a_bad_reference_is_refused_with_a_sentence(text, sentence):
    with pytest.raises(BadReference, match=sentence):
        parse_reference(text)


@given(st.text(max_size=60) | st.from_regex(r"(hf|run|data|path|new|api):.{0,40}", fullmatch=True))
def test_any_text_is_a_reference_or_a_bad_one_and_parsing_settles(text):
    try:
        found = parse_reference(text)
    except BadReference:
        return
    assert parse_reference(str(found)) == found
