"""Expected calibration error, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from training.calibration import calibration_error


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_a_model_that_is_as_sure_as_it_is_right_has_no_error() -> None:
    margins = np.array([logit(0.75)] * 3 + [-logit(0.75)])  # three of four right, 75 % sure
    assert calibration_error(margins) == pytest.approx(0, abs=1e-12)


def test_being_surer_than_right_is_the_difference() -> None:
    margins = np.array([logit(0.98), -logit(0.98)])  # half of them right
    assert calibration_error(margins) == pytest.approx(0.48)


def test_bins_count_by_their_share() -> None:
    # three at 0.98, all right: 0.02 each; one at 0.62, wrong: 0.62
    margins = np.array([logit(0.98)] * 3 + [-logit(0.62)])
    assert calibration_error(margins) == pytest.approx((3 * 0.02 + 0.62) / 4)


def test_equal_rewards_are_half_right() -> None:
    assert calibration_error(np.zeros(5)) == 0.0


def test_a_margin_of_any_size_is_taken() -> None:
    assert calibration_error(np.array([1e6, 800.0])) == pytest.approx(0, abs=1e-12)
