"""Lines of a JSON Lines file in bounded memory, and names for the files that are something else. No torch here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from training.errors import DataError

MAX_ROW = 16 << 20  # bytes of one line
BLOCK = 4 << 20  # bytes read at once
BOM = b"\xef\xbb\xbf"


class RowError(Exception):
    """What is wrong with one row, as the rest of a sentence that begins with its place."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class RowProblem:
    """A bad line of a file: its number from 1, and what is wrong with it."""

    line: int
    message: str
    hint: str = ""

    @property
    def sentence(self) -> str:
        return f"Line {self.line:,}: {self.message}"


class BadRow(DataError):
    """A data set holds lines that cannot be used. `problems`: the first of them, `line`: the first one's number."""

    def __init__(self, name: str, problems: list[RowProblem], more: bool = False) -> None:
        first = problems[0]
        others = "" if len(problems) == 1 else f" ({'at least ' if more else ''}{len(problems) - 1:,} more bad lines)"
        super().__init__(f"Line {first.line:,} of {name}: {first.message}{others}", first.hint)
        self.line = first.line
        self.problems = problems
        self.more = more


def data_files(path: Path) -> list[Path]:
    """The file itself, or the JSON Lines files of a folder, by name. Raises DataError."""
    try:
        if not path.is_dir():
            if path.exists() and not path.is_file():  # opening a pipe would wait for ever
                raise DataError(f"{path} is no plain file.", "Name a JSON Lines file, or a folder of them.")
            return [path]
        files = sorted(file for file in path.iterdir() if file.suffix in {".jsonl", ".ndjson"} and file.is_file())
    except OSError as error:
        raise DataError(f"{path} could not be read: {error.strerror}.", "Check the path and who may read it.") from None
    if not files:
        raise DataError(f"The folder {path} holds no .jsonl file.", "Put the data there, or name a file.")
    return files


def numbered_lines(
    path: Path, watch: Callable[[bytes], object] = len, name: str | None = None
) -> Iterator[tuple[int, bytes]]:
    """Every line that is not blank, with its number from 1; `watch` sees every block of bytes that was read.

    At most MAX_ROW + 1 bytes of a line are given (`parse_row` refuses such a line), so a file of any size, and a
    line of any length, is read in about 25 MiB. Raises DataError where the file cannot be read or is no JSON Lines.
    """
    try:
        with path.open("rb") as file:
            yield from _lines(file, name or path.name, watch)
    except FileNotFoundError:
        raise DataError(f"There is no file {path}.", "Check the name; it may have been moved or deleted.") from None
    except OSError as error:
        raise DataError(f"{path} could not be read: {error.strerror}.", "Check the file and who may read it.") from None


def _lines(file: BinaryIO, name: str, watch: Callable[[bytes], object]) -> Iterator[tuple[int, bytes]]:
    block = file.read(BLOCK)
    refuse_foreign(block, name)
    number, rest = 0, b""
    while block:
        watch(block)
        lines = (rest + block.removeprefix(BOM) if number == 0 and not rest else rest + block).split(b"\n")
        rest = lines.pop()[: MAX_ROW + 1]
        for number, line in enumerate(lines, number + 1):  # noqa: B020 (goes on where the last block ended)
            if line and not line.isspace():
                yield number, line
        block = file.read(BLOCK)
    if rest and not rest.isspace():
        yield number + 1, rest


def parse_row(line: bytes) -> dict[str, Any]:
    """One line as an object. Raises RowError."""
    if len(line) > MAX_ROW:
        raise RowError(
            f"the row is longer than {MAX_ROW >> 20} MiB.", "Split the row; no model reads that much at once."
        )
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise _broken(line, error) from None
    if type(row) is not dict:
        kind = {list: "an array", str: "a text", type(None): "null", bool: "true or false"}.get(type(row), "a number")
        raise RowError(f"the row is {kind}, not an object.", 'Write one object a line, such as {"messages": [...]}.')
    return row


def _broken(line: bytes, error: orjson.JSONDecodeError) -> RowError:
    try:
        line.decode()
    except UnicodeDecodeError as wrong:
        return RowError(
            f"byte {wrong.start + 1:,} is not UTF-8.",
            "The file is probably in Latin-1 or Windows-1252: `iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW`.",
        )
    reason = str(error.msg).split(":")[0].strip()
    if "depth" in reason or "recursion" in reason.lower():
        return RowError(
            "the row is nested too deeply.", "A row is a flat object; its messages are one list of objects."
        )
    if "surrogate" in reason:
        return RowError(
            "the row holds half of a surrogate pair (such as \\ud83d alone), which is no character.",
            "Write the whole character, or leave it out.",
        )
    if b"\0" in line:
        return RowError(
            "the row holds NUL bytes: the file is binary, or damaged.", "Write the file again from its source."
        )
    if re.search(rb":\s*(NaN|-?Infinity)\b", line):
        return RowError("the row holds NaN or Infinity, which JSON does not know.", "Write a finite number, or null.")
    if line.strip() in {b"{", b"["}:
        return RowError("the object goes over several lines.", "Write one object a line: `jq -c . FILE > NEW`.")
    if "control character" in reason:
        reason = "a line break or another control character inside a text is not escaped"
    return RowError(
        f"this is not valid JSON: {reason}, at character {min(error.pos + 1, len(line)):,} of {len(line):,}.",
        "Correct the line, or leave it out.",
    )


MAGIC: dict[bytes, tuple[str, str]] = {
    b"PAR1": ("a Parquet file", 'python -c "import sys, pandas; pandas.read_parquet(sys.argv[1]).to_json'
              "(sys.argv[2], orient='records', lines=True)\" FILE NEW"),
    b"PK\x03\x04": ("a ZIP archive", "unzip FILE"),
    b"\x1f\x8b": ("compressed with gzip", "gunzip FILE"),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", "unzstd FILE"),
    b"BZh": ("compressed with bzip2", "bunzip2 FILE"),
    b"\xfd7zXZ": ("compressed with xz", "unxz FILE"),
    b"ARROW1": ("an Arrow file", ""),
    b"\xff\xff\xff\xff": ("an Arrow stream", ""),
    b"SQLite format 3": ("an SQLite database", ""),
    b"%PDF": ("a PDF", ""),
    b"\x80\x04": ("a pickle", ""),
    b"\xff\xfe": ("text in UTF-16", "iconv -f UTF-16 -t UTF-8 FILE > NEW"),
    b"\xfe\xff": ("text in UTF-16", "iconv -f UTF-16 -t UTF-8 FILE > NEW"),
}  # fmt: skip
"""What a file is whose first bytes are these, and the command that makes text of it."""


def refuse_foreign(head: bytes, name: str) -> None:
    """Raise DataError, with a sentence that names the format, where a file's first block is not JSON Lines."""
    if not head:
        raise DataError(
            f"{name} is empty.", 'A data set is JSON Lines: one object a line, such as {"messages": [...]}.'
        )
    for magic, (what, command) in MAGIC.items():
        if head.startswith(magic):
            way = f"Make JSON Lines of it: `{command}`." if command else "Save the rows as JSON Lines."
            raise DataError(f"{name} is {what}, not JSON Lines.", way)
    even, odd = head[:64:2].count(0), head[1:64:2].count(0)
    if even > 8 and odd > 8:
        raise DataError(f"{name} is binary: it begins with NUL bytes.", "Write the file again from its source.")
    if even > 8 or odd > 8:
        raise DataError(f"{name} is text in UTF-16, not UTF-8.", "Convert it: `iconv -f UTF-16LE -t UTF-8 FILE > NEW`.")
    text = head.removeprefix(BOM).lstrip()
    if text.startswith(b"["):
        raise DataError(
            f"{name} is one big JSON array, not JSON Lines.", "Write one object a line: `jq -c '.[]' FILE > NEW`."
        )
    if text and not text.startswith(b"{") and not _is_json(text.partition(b"\n")[0]):
        _refuse_tables(text, name)


def _is_json(line: bytes) -> bool:
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True


def _refuse_tables(text: bytes, name: str) -> None:
    first, _, second = text[:65536].decode("utf-8", "replace").partition("\n")
    second = second.partition("\n")[0]
    for separator, what in (("\t", "TSV"), (",", "CSV"), (";", "CSV")):
        columns = first.count(separator)
        if columns and not re.search(r"[{}]", first) and (second.count(separator) >= columns or not second):
            header = [part.strip().strip('"')[:30] for part in first.split(separator)[:8]]
            raise DataError(
                f"{name} is {what} (columns: {', '.join(header)}), not JSON Lines.",
                "Convert it: `python -c \"import sys, pandas; pandas.read_csv(sys.argv[1], sep=None, engine='python')"
                ".to_json(sys.argv[2], orient='records', lines=True)\" FILE NEW`, then name the columns as needed.",
            )
    if text[:1].isalpha() and not text.startswith((b"null", b"true", b"false")):
        raise DataError(
            f"{name} is plain text, not JSON Lines.",
            "To train on each line as a text: `jq -R -c 'select(length > 0) | {text: .}' FILE > NEW`.",
        )
