"""Called before any data is split: rows that ask what is held out leave their own data set, and refuse any other."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from training.commits import Commits
from training.data.examples import Example, Pair
from training.data.held_out import HeldOutSet
from training.data.leaks import Held, Question, question_of
from training.data.likeness import Likeness, Suspects, by_letters, by_meaning
from training.data.sources import Part, named_rows
from training.embed import open_embedder
from training.errors import DataError, HubError
from training.journal import Journal
from training.references import Reference, parse_reference
from training.rundir import HeldOut, ResolvedInput, RunDir, RunFile
from training.throttle import Throttle
from training.words import were

BLOCK = 20_000  # rows that are looked at at once
NAMED = 20  # held-out prompts that a refusal names
SHOWN = 60  # characters of a prompt in a sentence

R = TypeVar("R", Example, Pair)


@dataclass(frozen=True)
class Leak:
    """A row that asks what is held out. `similarity`: None where it is equal."""

    part: int
    row: int
    prompt: int
    similarity: float | None = None


@dataclass(frozen=True)
class _Suspect:
    """A row whose words are like those of a held-out prompt."""

    part: int
    row: int
    prompt: int
    text: str


def without_held_out(
    parts: Sequence[Part[R]], held_out: HeldOutSet, run: RunFile, run_dir: RunDir, journal: Journal
) -> list[Part[R]]:
    """The data of a run, without the rows of the held-out prompts' own data set that ask what is held out.

    Raises DataError where another data set asks it, or nothing is left; ModelError where the embedder is not what it
    should be.
    """
    wanted = run.held_out
    assert wanted is not None
    journal.status("looking for held-out prompts in the data")
    held = Held(held_out.prompts)
    leaks = leaks_in(parts, held, run, run_dir, journal)
    by_part: dict[int, list[Leak]] = defaultdict(list)
    for leak in sorted(leaks, key=lambda leak: (leak.part, leak.row)):
        by_part[leak.part].append(leak)
    own = [_same_set(wanted, part, run.inputs) for part in parts]
    foreign = [leak for index, found in by_part.items() if not own[index] for leak in found]
    if foreign:
        raise _refusal(foreign, parts, held)
    left = [_taken_out(part, by_part[index], wanted, journal) for index, part in enumerate(parts)]
    if not any(part.rows for part in left):
        raise DataError(
            f"Nothing is left of {' and '.join(dict.fromkeys(part.reference for part in parts))}: all prompts are held out.",
            "Train on other data, or hold out fewer prompts.",
            field="dataset",
        )
    return left


def leaks_in(parts: Sequence[Part[R]], held: Held, run: RunFile, run_dir: RunDir, journal: Journal) -> list[Leak]:
    """The rows that ask what is held out, in any order: what `without_held_out` takes out, or refuses."""
    wanted = run.held_out
    assert wanted is not None
    leaks, suspects = _search(parts, held, wanted, journal)
    return leaks + _confirmed(suspects, held, wanted, run, run_dir, journal)


def _search(
    parts: Sequence[Part[R]], held: Held, wanted: HeldOut, journal: Journal
) -> tuple[list[Leak], list[_Suspect]]:
    """What is equal, and what is to be looked at more closely."""
    suspects_of = Suspects(held.asked) if wanted.similarity < 1 else None
    leaks: list[Leak] = []
    suspects: list[_Suspect] = []
    throttle, done, total = Throttle(), 0, sum(len(part.rows) for part in parts)
    for at, part in enumerate(parts):
        for start in range(0, len(part.rows), BLOCK):
            others: dict[str, list[tuple[int, Question]]] = defaultdict(list)
            for row in range(start, min(start + BLOCK, len(part.rows))):
                question = question_of(part.rows[row])
                prompt = held.equal(part.rows[row], question)
                if prompt is not None:
                    leaks.append(Leak(at, row, prompt))
                elif question.turns:
                    others["\n".join(text for _, text in question.turns)].append((row, question))
            if suspects_of is not None and others:
                suspects += _suspects(suspects_of, held, at, others)
            done += min(BLOCK, len(part.rows) - start)
            if throttle.ready() or done == total:
                journal.progress("comparing with the held-out prompts", done, total, "rows")
    return leaks, suspects


def _suspects(
    suspects_of: Suspects, held: Held, part: int, others: Mapping[str, list[tuple[int, Question]]]
) -> Iterator[_Suspect]:
    """`others`: the rows of a block, and what they ask, by the normal text."""
    asked = list(others.values())
    for index, prompt in suspects_of.find([rows[0][1].text for rows in asked], list(others)):
        for row, question in asked[index]:
            if held.questions[prompt].fits(question.system):
                yield _Suspect(part, row, prompt, asked[index][0][1].text)


def _confirmed(
    suspects: Sequence[_Suspect], held: Held, wanted: HeldOut, run: RunFile, run_dir: RunDir, journal: Journal
) -> list[Leak]:
    """Those that ask the same: the likest held-out prompt of each row."""
    if not suspects:
        return []
    index = {text: place for place, text in enumerate(dict.fromkeys(suspect.text for suspect in suspects))}
    pairs = sorted({(index[suspect.text], suspect.prompt) for suspect in suspects})
    likeness = {
        (each.index, each.held_out): each.similarity
        for each in _alike(pairs, list(index), held, wanted, run, run_dir, journal)
    }
    best: dict[tuple[int, int], Leak] = {}
    for each in suspects:
        similarity = likeness.get((index[each.text], each.prompt))
        known = best.get((each.part, each.row))
        if similarity is not None and (known is None or similarity > (known.similarity or 0)):
            best[each.part, each.row] = Leak(each.part, each.row, each.prompt, similarity)
    return list(best.values())


def _alike(
    pairs: Sequence[tuple[int, int]], texts: Sequence[str], held: Held, wanted: HeldOut, run: RunFile, run_dir: RunDir,
    journal: Journal,
) -> list[Likeness]:  # fmt: skip
    try:
        embedder = open_embedder(run.embedder, journal, Commits(run_dir.commits))
    except HubError as error:
        journal.log(
            f"Rewordings of held-out prompts were not looked for, only equal and all but equal ones: {error} "
            f"{error.failure.hint}",
            "warning",
        )
        return by_letters(pairs, texts, held.asked)
    journal.status("comparing what prompts mean", embedder=embedder.name, prompts=len(texts))
    throttle = Throttle()

    def progress(done: int, total: int) -> None:
        if throttle.ready() or done == total:
            journal.progress("comparing what prompts mean", done, total, "prompts")

    return by_meaning(pairs, texts, held.asked, embedder, wanted.similarity, progress)


def _same_set(wanted: HeldOut, part: Part[R], inputs: Mapping[str, ResolvedInput]) -> bool:
    """Whether a part belongs to the data set that the held-out prompts come from, however many rows either takes."""
    source, reference = parse_reference(wanted.dataset), parse_reference(part.reference)
    if source.kind != reference.kind:
        return False
    if source.kind == "path":
        found = inputs.get(wanted.dataset)
        return found is not None and found.path is not None and part.path is not None and _within(part.path, found.path)
    return _identity(source) == _identity(reference)


def _within(path: Path, other: str) -> bool:
    return path.resolve().is_relative_to(Path(other).resolve())


def _identity(reference: Reference) -> tuple[str, ...]:
    options = reference.options
    if reference.kind == "hf":  # what is read where nothing is said
        return (
            reference.name, reference.version or "main", options.get("config", "default"), options.get("split", "train"),
        )  # fmt: skip
    return reference.name, reference.version or ""


def _taken_out(part: Part[R], leaks: Sequence[Leak], wanted: HeldOut, journal: Journal) -> Part[R]:
    """The part without these rows; how many they are goes into the journal, as two numbers."""
    equal = [leak for leak in leaks if leak.similarity is None]
    nearly = [leak for leak in leaks if leak.similarity is not None]
    journal.artifact(
        "held-out rows taken out", part.reference, rows=len(part.rows), equal=len(equal), nearly=len(nearly)
    )
    if not leaks:
        said = "" if wanted.similarity >= 1 else ", nor asks the same in other words"
        journal.log(f"{part.name}: none of its {len(part.rows):,} rows has a held-out prompt{said}.")
        return part
    journal.log(
        f"{part.name}: {were(len(equal), 'row')} taken out, since {'its' if len(equal) == 1 else 'their'} prompt is held out"
        + (f" ({named_rows(_numbers(part, equal))})" if equal else "")
        + f"; and {len(nearly):,} that {'asks' if len(nearly) == 1 else 'ask'} the same as a held-out one"
        + (f" ({named_rows(_numbers(part, nearly))})." if nearly else ".")
    )
    gone = {leak.row for leak in leaks}
    kept = [index for index in range(len(part.rows)) if index not in gone]
    return Part(
        part.reference, part.name, part.path, [part.rows[index] for index in kept],
        array("q", (part.numbers[index] for index in kept)),
    )  # fmt: skip


def _numbers(part: Part[R], leaks: Iterable[Leak]) -> list[int]:
    return [part.numbers[leak.row] for leak in leaks]


def _refusal(leaks: Sequence[Leak], parts: Sequence[Part[R]], held: Held) -> DataError:
    """Names each held-out prompt that was found, with its rows."""
    places: dict[tuple[int, int], list[Leak]] = defaultdict(list)
    for leak in leaks:
        places[leak.part, leak.prompt].append(leak)
    told = [_told(parts[part], held, prompt, found) for (part, prompt), found in places.items()]
    more = f"; and {len(told) - NAMED:,} more" if len(told) > NAMED else ""
    names = " and ".join(dict.fromkeys(parts[leak.part].reference for leak in leaks))
    count = len({prompt for _, prompt in places})
    asks = "1 of the held-out prompts is" if count == 1 else f"{count:,} of the held-out prompts are"
    reworded = any(leak.similarity is not None for leak in leaks)
    return DataError(
        f"{asks} in {names} too: {'; '.join(told[:NAMED])}{more}.",
        "Leave these rows out, or hold out prompts of this data set: what a model has learnt does not test it."
        + (" If one asks for something else than it seems, raise held_out.similarity." if reworded else ""),
        field="dataset",
    )


def _told(part: Part[R], held: Held, prompt: int, leaks: Sequence[Leak]) -> str:
    best = max(leaks, key=lambda leak: 2.0 if leak.similarity is None else leak.similarity)
    how = "equal"
    if best.similarity is not None:
        how = f"where {_shown(question_of(part.rows[best.row]).text)} asks the same ({best.similarity:.2f})"
    place = f"{named_rows(_numbers(part, leaks))} of {part.name}"
    return f"{_shown(held.asked[prompt].text)} ({held.prompts[prompt].prompt_id}) in {place}, {how}"


def _shown(text: str) -> str:
    text = " ".join(text.split())
    return f"“{text[:SHOWN]}{'…' if len(text) > SHOWN else ''}”"
