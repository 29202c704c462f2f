"""The blocked search against the whole matrix of products."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from training.augmenting import similarity
from training.augmenting.similarity import Nearest, nearest, nearest_earlier, on_cpu, on_device

Vectors = NDArray[np.float32]
Search = Callable[[Vectors, Vectors, bool], Nearest]


def unit(count: int, seed: int, dimensions: int = 24) -> Vectors:
    drawn = np.random.default_rng(seed).standard_normal((count, dimensions)).astype(np.float32)
    lengths: Vectors = np.linalg.norm(drawn, axis=1, keepdims=True)
    return drawn / lengths


def numpy_(queries: Vectors, others: Vectors, earlier: bool) -> Nearest:
    return on_cpu(queries, others, earlier, lambda done, total: None)


def torch_(queries: Vectors, others: Vectors, earlier: bool) -> Nearest:
    return on_device(queries, others, earlier, torch.device("cpu"), lambda done, total: None, size=7)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity, "ROWS", 7)
    monkeypatch.setattr(similarity, "COLUMNS", 5)


@pytest.mark.parametrize("search", [numpy_, torch_])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (7, 5), (23, 31), (50, 3), (8, 200)])
def test_it_finds_what_the_whole_matrix_has(search: Search, n: int, m: int) -> None:
    queries, others = unit(n, 0), unit(m, 1)
    found, whole = search(queries, others, False), queries @ others.T
    np.testing.assert_allclose(found.cosine, whole.max(axis=1), atol=1e-6)
    np.testing.assert_array_equal(found.index, whole.argmax(axis=1))


@pytest.mark.parametrize("search", [numpy_, torch_])
@pytest.mark.parametrize("n", [1, 2, 7, 8, 40])
def test_of_earlier_ones_it_finds_what_the_triangle_has(search: Search, n: int) -> None:
    vectors = unit(n, 2)
    found, whole = search(vectors, vectors, True), vectors @ vectors.T
    assert (found.cosine[0], found.index[0]) == (-2.0, -1)
    for row in range(1, n):
        assert found.cosine[row] == pytest.approx(whole[row, :row].max(), abs=1e-6)
        assert found.index[row] == whole[row, :row].argmax()


@pytest.mark.parametrize("search", [numpy_, torch_])
def test_of_equal_ones_the_first_is_the_nearest(search: Search) -> None:
    one = unit(1, 3)
    found = search(one, np.repeat(one, 20, axis=0), False)
    assert (found.index[0], found.cosine[0]) == (0, pytest.approx(1.0))


@pytest.mark.parametrize("search", [numpy_, torch_])
def test_where_there_is_nothing_to_compare_with_it_says_so(search: Search) -> None:
    found = search(unit(3, 0), unit(0, 1), False)
    assert (found.cosine.tolist(), found.index.tolist()) == ([-2.0] * 3, [-1] * 3)
    assert len(search(unit(0, 0), unit(3, 1), False).cosine) == 0


def test_it_tells_how_far_it_is_to_the_last_row() -> None:
    told: list[tuple[int, int]] = []
    nearest(unit(20, 0), unit(4, 1), lambda done, total: told.append((done, total)))
    assert told[-1] == (20, 20)
    told.clear()
    nearest_earlier(unit(20, 0), lambda done, total: told.append((done, total)))
    assert told[-1] == (20, 20)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_gpu_it_finds_the_same() -> None:
    queries, others = unit(3000, 0, 384), unit(2000, 1, 384)
    found = on_device(queries, others, False, torch.device("cuda"), lambda done, total: None, size=512)
    np.testing.assert_allclose(found.cosine, numpy_(queries, others, False).cosine, atol=1e-5)
