"""References to models, data sets and judges: `hf:`, `run:`, `data:`, `path:`, `new:`, `api:`, `checker`, `held_out`.

No torch here: the web side parses references with this module too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args
from urllib.parse import parse_qsl

Kind = Literal["hf", "run", "data", "path", "new", "api", "checker", "held_out"]
KINDS: tuple[str, ...] = get_args(Kind)
BARE = frozenset({"checker", "held_out"})  # kinds that are a word alone

HF_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")
HF_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
RUN_NAME = re.compile(rf"({NAME.pattern}/)?{NAME.pattern}")
API_NAME = re.compile(rf"{NAME.pattern}/[A-Za-z0-9][A-Za-z0-9._:/-]{{0,199}}")
CHECKPOINT = re.compile(r"best|last|[0-9]{1,12}")

OPTIONS: dict[str, frozenset[str]] = {
    "hf": frozenset({"config", "split", "rows"}),
    "run": frozenset({"checkpoint", "part"}),
    "path": frozenset({"rows"}),
}

FORMS = {
    "hf": "hf:<owner>/<name>[@<revision>][?config=..&split=..&rows=..]",
    "run": "run:<name>[?checkpoint=best|last|<step>][?part=pairs|remaining]",
    "data": "data:<name>[@<version>]",
    "path": "path:<file or folder>[?rows=..]",
    "new": "new:<shape>",
    "api": "api:<endpoint>/<model>",
    "checker": "checker",
    "held_out": "held_out",
}


class BadReference(ValueError):
    """The text is not a reference; the message says what would be right."""


@dataclass(frozen=True)
class Reference:
    """One parsed reference. `str(reference)` gives the text back."""

    kind: Kind
    name: str
    version: str | None = None  # hf: revision; data: version
    options: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        if self.kind in BARE:
            return self.kind
        text = f"{self.kind}:{self.name}"
        if self.version is not None:
            text += f"@{self.version}"
        if self.options:
            text += "?" + "&".join(f"{key}={value}" for key, value in self.options.items())
        return text

    @property
    def rows(self) -> int | None:
        """At most so many rows of the data set, or None for all."""
        return int(self.options["rows"]) if "rows" in self.options else None


def parse_reference(text: str, kinds: Sequence[str] = KINDS) -> Reference:
    """Parse one reference, of one of these kinds. Raises BadReference with a sentence that names the right forms."""
    kind, colon, rest = text.partition(":")
    if (kind not in kinds) or bool(colon) == (kind in BARE):
        forms = ", ".join(FORMS[each] for each in kinds)
        guess = f" Did you mean path:{text[:200]}?" if text.startswith(("/", "./", "~/")) and "path" in kinds else ""
        raise BadReference(f"“{text[:80]}” cannot stand here.{guess} Use one of: {forms}.")
    if kind in BARE:
        return Reference(kind, "")  # type: ignore[arg-type]
    if any(ord(character) < 32 for character in text):
        raise BadReference("A reference holds no line break or other control character. Leave it out.")
    if not rest:
        raise BadReference(f"Something is missing after “{kind}:”. The form is {FORMS[kind]}.")
    name, version, options = _split(kind, rest)
    _check(kind, name, version, options)
    return Reference(kind, name, version, options)  # type: ignore[arg-type]


def _split(kind: str, rest: str) -> tuple[str, str | None, dict[str, str]]:
    name, version, options = rest, None, {}
    if kind in OPTIONS:
        name, _, query = rest.partition("?")
        options = dict(parse_qsl(query, keep_blank_values=True))
    if kind in {"hf", "data"}:
        name, at, revision = name.partition("@")
        version = revision if at else None
    return name, version, options


def _check(kind: str, name: str, version: str | None, options: dict[str, str]) -> None:
    patterns = {"hf": HF_NAME, "run": RUN_NAME, "data": NAME, "new": NAME, "api": API_NAME}
    if (kind in patterns and not patterns[kind].fullmatch(name)) or (kind == "hf" and (".." in name or "--" in name)):
        raise BadReference(f"“{name[:80]}” is no {kind}: name. The form is {FORMS[kind]}.")
    if kind == "hf" and version is not None and (not HF_REVISION.fullmatch(version) or ".." in version):
        raise BadReference(f"“{version[:80]}” is no revision: a branch, a tag or a commit is.")
    if kind == "data" and version is not None and not re.fullmatch(r"[1-9][0-9]{0,8}", version):
        raise BadReference(f"A data set's version is a whole number from 1, not “{version[:20]}”.")
    for key, value in options.items():
        if key not in OPTIONS.get(kind, frozenset()):
            known = ", ".join(sorted(OPTIONS.get(kind, frozenset()))) or "none"
            raise BadReference(f"“{key[:40]}” is no option of {kind}: references. It takes: {known}.")
        if key == "rows" and not re.fullmatch(r"[1-9][0-9]{0,11}", value):
            raise BadReference("rows takes a whole number from 1.")
        if key == "part" and value not in {"pairs", "remaining"}:
            raise BadReference("part takes pairs or remaining, of an augment run.")
        if key == "checkpoint" and not CHECKPOINT.fullmatch(value):
            raise BadReference("checkpoint takes best, last or a step.")


def key_variable(endpoint: str) -> str:
    """The environment variable that holds an endpoint's key: `PREFLAB_KEY_<NAME>`; its key is nowhere else."""
    return "PREFLAB_KEY_" + re.sub(r"[^A-Z0-9]", "_", endpoint.upper())
