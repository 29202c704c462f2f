"""What the reference said is kept, by model and tokens, and survives whatever happens to a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from training.reference_store import ReferenceStore

A, B, C = bytes(16), bytes([1] * 15) + b"\0", bytes(range(16))  # keys that end in zeros are keys too


def values(*rows: tuple[float, float]) -> np.ndarray:
    return np.array(rows, np.float32)


def test_what_one_run_adds_another_finds(tmp_path: Path) -> None:
    ReferenceStore(tmp_path / "model").add([A, B], values((-1.5, -2.5), (-3.0, -4.0)))
    store = ReferenceStore(tmp_path / "model")
    assert store.missing([C, A, B]) == [0]
    assert store.find([B, A]).tolist() == [[-3.0, -4.0], [-1.5, -2.5]]


def test_stores_of_two_models_know_nothing_of_each_other(tmp_path: Path) -> None:
    ReferenceStore(tmp_path / "model").add([A], values((-1.0, -2.0)))
    assert ReferenceStore(tmp_path / "other").missing([A]) == [0]


def test_two_runs_that_add_at_once_both_keep_theirs(tmp_path: Path) -> None:
    one, other = ReferenceStore(tmp_path), ReferenceStore(tmp_path)
    one.add([A], values((-1.0, -2.0)))
    other.add([B], values((-3.0, -4.0)))
    assert ReferenceStore(tmp_path).missing([A, B]) == []


def test_a_pair_that_stands_twice_in_the_data_is_computed_once(tmp_path: Path) -> None:
    assert ReferenceStore(tmp_path).missing([A, B, A]) == [0, 1]


@pytest.mark.parametrize("damage", [b"", b"no archive", b"PK\x03\x04 torn"])
def test_a_damaged_file_is_computed_again_and_replaced(tmp_path: Path, damage: bytes) -> None:
    store = ReferenceStore(tmp_path)
    store.add([A], values((-1.0, -2.0)))
    (file,) = tmp_path.glob("*.npz")
    file.write_bytes(damage)
    store = ReferenceStore(tmp_path)
    assert store.missing([A]) == [0]
    store.add([A], values((-1.0, -2.0)))
    assert ReferenceStore(tmp_path).find([A]).tolist() == [[-1.0, -2.0]]
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_with_a_number_that_is_none_is_not_believed(tmp_path: Path) -> None:
    ReferenceStore(tmp_path).add([A], values((float("nan"), -2.0)))
    assert ReferenceStore(tmp_path).missing([A]) == [0]


def test_a_file_that_would_run_code_is_not_loaded(tmp_path: Path) -> None:
    evil = np.array([{"a": 1}], dtype=object)
    np.savez(tmp_path / "evil.npz", keys=evil, values=evil)
    assert ReferenceStore(tmp_path).missing([A]) == [0]
