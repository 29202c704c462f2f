"""Rows in other people's shapes: which shape it is, and how to make it ours. No torch here."""

from __future__ import annotations

from typing import Any

from training.data.lines import RowError

TURNS = '{messages: [{role: "user", content: .%s}, {role: "assistant", content: .%s}]}'
PAIRS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("prompt", "answer"),
    ("question", "answer"),
    ("question", "response"),
    ("query", "response"),
    ("input", "output"),
    ("instruction", "response"),
)
SHAREGPT = (
    '{messages: [.conversations[] | {role: ({human: "user", user: "user", gpt: "assistant", assistant: "assistant",'
    ' system: "system"}[.from]), content: .value}]}'
)
ALPACA = (
    '{messages: [{role: "user", content: ([.instruction, .input // ""] | map(select(. != "")) | join("\\n\\n"))},'
    ' {role: "assistant", content: .output}]}'
)


def advice(row: dict[str, Any]) -> RowError:
    """What to say of a row whose keys are of no known form: its keys, and the nearest right form."""
    keys = set(row)
    found = ", ".join(f"“{key[:30]}”" for key in list(row)[:8]) or "none"
    if {"model_a", "model_b"} <= keys:
        return RowError("the row is a verdict, not an example.", "Import it with `preflab import verdicts`.")
    if {"prompt_id", "response"} <= keys:
        return RowError("the row is a model's response, not an example.", "Import it with `preflab import responses`.")
    if "conversations" in keys:
        return RowError(f"the row is in the ShareGPT form (keys: {found}).", _convert(SHAREGPT))
    if {"instruction", "output"} <= keys:
        return RowError(f"the row is in the Alpaca form (keys: {found}).", _convert(ALPACA))
    for question, answer in PAIRS:
        if {question, answer} <= keys:
            turns = TURNS % (question, answer)
            return RowError(f"the row has “{question}” and “{answer}”, but no “messages”.", _convert(turns))
    if {"role", "content"} <= keys:
        return RowError("the row is a single message, not a chat.", 'A row holds a whole chat: {"messages": [...]}.')
    if "chosen" in keys or "rejected" in keys:
        missing = "rejected" if "chosen" in keys else "chosen"
        return RowError(f"the row has no “{missing}”.", "A preference has a prompt, a chosen and a rejected answer.")
    if "prompt" in keys:
        return RowError(
            f"the row has a prompt, but no answer and no “prompt_id” (keys: {found}).",
            'A chat is {"messages": [...]}; a prompt of a prompt set is {"prompt_id": "...", "prompt": "..."}.',
        )
    for key in ("content", "document", "body", "article", "code"):
        if isinstance(row.get(key), str):
            return RowError(f"the row has no “text” (keys: {found}).", _convert(f"{{text: .{key}}}"))
    return RowError(
        f"the row is in no known form (keys: {found}).",
        'Write {"messages": [{"role", "content"}, ...]} for a chat or {"text": "..."} for a text.',
    )


def _convert(filter_: str) -> str:
    return f"Convert the file: `jq -c '{filter_}' FILE > NEW`."
