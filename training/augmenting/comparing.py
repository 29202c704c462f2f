"""What new prompts and pairs of answers are like: to what is held out, to the data, to each other."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import replace

from training.augmenting.embedding import Embeddings
from training.augmenting.funnel import Candidate, NewPrompt, extremes
from training.augmenting.similarity import Nearest, nearest, nearest_earlier
from training.augmenting.source import Data, asked
from training.data.examples import Message, Pair
from training.data.leaks import Held
from training.data.normal import digest
from training.data.sources import Part
from training.journal import Journal
from training.leak_guard import leaks_in
from training.rundir import RunDir, RunFile

DIGITS = 6  # of a similarity
ALIKE = 1 - 10**-DIGITS  # of two texts that are not equal: 1 means equal
SHOWN = 300  # characters of the nearest prompt


def compared(
    prompts: Sequence[NewPrompt], data: Data, embeddings: Embeddings, run: RunFile, run_dir: RunDir, journal: Journal
) -> list[NewPrompt]:
    """The prompts with their similarities. Those that are empty or cut are no prompts, and nothing is held against them.

    Prompts that were drawn, and not written, are not compared: the guard has looked at them with their data.
    """
    whole = [place for place, each in enumerate(prompts) if each.ended and each.text.strip() and each.written_from]
    if not whole:
        return list(prompts)
    new = [prompts[place] for place in whole]
    vectors = embeddings.of([asked(each.messages) for each in new], "the new prompts")
    of_data = embeddings.of([asked(each.messages) for each in data.prompts], "the data's prompts")
    journal.status("comparing prompts")
    done = lambda done, total: journal.progress("comparing prompts", done, total, "prompts")  # noqa: E731
    found = _with_data(new, data, nearest(vectors, of_data, done))
    found = _with_earlier(found, nearest_earlier(vectors, done))
    if data.held_out is not None:
        held_out = data.held_out.prompts
        of_held_out = embeddings.of([asked(each.messages) for each in held_out], "the held-out prompts")
        found = _with_held_out(found, data, nearest(vectors, of_held_out, done))
        found = _with_leaks(found, data, run, run_dir, journal)
    replaced = dict(zip(whole, found, strict=True))
    return [replaced.get(place, each) for place, each in enumerate(prompts)]


def _with_data(new: Sequence[NewPrompt], data: Data, near: Nearest) -> list[NewPrompt]:
    known = {digest(each.messages): place for place, each in enumerate(data.prompts)}
    found = []
    for each, cosine, index in zip(new, near.cosine.tolist(), near.index.tolist(), strict=True):
        equal = known.get(digest(each.messages))
        text = asked(data.prompts[index if equal is None else equal].messages)
        found.append(replace(each, data_similarity=_rounded(cosine, equal is not None), data_nearest=text[:SHOWN]))
    return found


def _with_earlier(new: Sequence[NewPrompt], near: Nearest) -> list[NewPrompt]:
    first: dict[bytes, int] = {}
    found = []
    for place, (each, cosine, index) in enumerate(zip(new, near.cosine.tolist(), near.index.tolist(), strict=True)):
        equal = first.setdefault(digest(each.messages), place)
        if place == 0:
            found.append(each)
            continue
        other = new[index if equal == place else equal].prompt_id
        found.append(replace(each, earlier_similarity=_rounded(cosine, equal < place), earlier_nearest=other))
    return found


def _with_held_out(new: Sequence[NewPrompt], data: Data, near: Nearest) -> list[NewPrompt]:
    assert data.held_out is not None
    held_out = data.held_out.prompts
    return [
        replace(each, leak_similarity=_rounded(cosine, False), leak_nearest=held_out[index].prompt_id)
        for each, cosine, index in zip(new, near.cosine.tolist(), near.index.tolist(), strict=True)
    ]


def _with_leaks(
    new: Sequence[NewPrompt], data: Data, run: RunFile, run_dir: RunDir, journal: Journal
) -> list[NewPrompt]:
    """What the guard of held-out prompts finds, too: it would refuse every run that trains on these pairs."""
    assert data.held_out is not None
    nothing = [Message(role="assistant", content="")]
    rows = [Pair(each.messages, nothing, nothing) for each in new]
    part = Part("run:augment", "the new prompts", None, rows, array("q", range(1, len(rows) + 1)))
    found = list(new)
    for leak in leaks_in([part], Held(data.held_out.prompts), run, run_dir, journal):
        near = data.held_out.prompts[leak.prompt].prompt_id
        similarity = 1.0 if leak.similarity is None else _rounded(leak.similarity, False)
        found[leak.row] = replace(found[leak.row], leaked=True, leak_similarity=similarity, leak_nearest=near)
    return found


def with_answers_compared(prompts: Sequence[NewPrompt], embeddings: Embeddings) -> list[NewPrompt]:
    """The prompts with the similarity of their best and their worst answer."""
    pairs: dict[int, tuple[Candidate, Candidate]] = {}
    for place, each in enumerate(prompts):
        if found := extremes(each.candidates):
            pairs[place] = each.candidates[found[0]], each.candidates[found[1]]
    best = embeddings.of([best.text for best, _ in pairs.values()], "the best answers")
    worst = embeddings.of([worst.text for _, worst in pairs.values()], "the worst answers")
    cosines = dict(zip(pairs, (best * worst).sum(axis=1).tolist(), strict=True))
    return [
        replace(each, answer_similarity=_rounded(cosines[place], _same(*pairs[place]))) if place in pairs else each
        for place, each in enumerate(prompts)
    ]


def _same(one: Candidate, other: Candidate) -> bool:
    return one.text.strip() == other.text.strip()


def _rounded(cosine: float, equal: bool) -> float:
    """1 for equal texts and for no others: an embedder that reads only a text's beginning takes more for equal."""
    return 1.0 if equal else min(ALIKE, round(cosine, DIGITS))
