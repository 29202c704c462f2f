"""outputs/candidates.jsonl: every answer with its measures and its fate, so that a threshold can be moved later.

One answer a line, those of one prompt after one another. A prompt that nobody answered has a line without an answer.
No torch here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from training.augmenting.funnel import Candidate, NewPrompt, Sifted
from training.data.lines import RowError, numbered_lines, parse_row
from training.errors import DataError

OF_PROMPT = (
    "ended", "leaked", "leak_similarity", "leak_nearest", "data_similarity", "data_nearest", "earlier_similarity",
    "earlier_nearest",
)  # fmt: skip
OF_ANSWER = ("ended", "tokens", "score", "repetition", "same_script")


def candidate_rows(sifted: Iterable[Sifted]) -> Iterator[dict[str, Any]]:
    """The lines, as objects.

    "prompt_reason" is why the prompt gives no pair, null where it does; "fate" what became of the answer.
    "answer_similarity" and "margin" stand with the two answers that make the pair.
    """
    for each in sifted:
        prompt = each.prompt
        head: dict[str, Any] = {"prompt_id": prompt.prompt_id, "written_from": prompt.written_from}
        head |= {"prompt": prompt.messages, "prompt_reason": each.reason}
        head |= {("prompt_ended" if name == "ended" else name): getattr(prompt, name) for name in OF_PROMPT}
        if not prompt.candidates:
            yield head
        for index, candidate in enumerate(prompt.candidates):
            pair = {"answer_similarity": prompt.answer_similarity, "margin": each.margin}
            yield {
                **head, "answer": candidate.text, **{name: getattr(candidate, name) for name in OF_ANSWER},
                **(pair if index in (each.best, each.worst) else {}), "fate": each.fates[index],
            }  # fmt: skip


def read_candidates(path: Path) -> list[NewPrompt]:
    """What `candidate_rows` was made of, fates apart. Raises DataError, which names the line."""
    prompts: list[NewPrompt] = []
    for number, line in numbered_lines(path):
        try:
            _take(parse_row(line), prompts)
        except RowError as error:
            raise DataError(f"Line {number:,} of {path.name}: {error.message}", error.hint) from None
        except (KeyError, TypeError, IndexError) as error:
            raise DataError(f"Line {number:,} of {path.name} is no candidate: {error!r}.", "Run it again.") from None
    return prompts


def _take(row: dict[str, Any], prompts: list[NewPrompt]) -> None:
    if not prompts or prompts[-1].prompt_id != row["prompt_id"]:
        measures = {name: row["prompt_ended" if name == "ended" else name] for name in OF_PROMPT}
        prompts.append(NewPrompt(row["prompt_id"], row["prompt"], row["written_from"], **measures))
        prompts[-1].text  # noqa: B018 (a prompt without messages is none)
    if "answer" not in row:
        return
    prompt = prompts[-1]
    candidate = Candidate(row["answer"], **{name: row[name] for name in OF_ANSWER})
    similarity = row.get("answer_similarity", prompt.answer_similarity)
    prompts[-1] = replace(prompt, answer_similarity=similarity, candidates=(*prompt.candidates, candidate))


def as_lines(rows: Iterable[dict[str, Any]]) -> bytes:
    """Rows as JSON Lines."""
    return b"".join(orjson.dumps(row) + b"\n" for row in rows)
