"""Times as buckets and days."""

import numpy as np
import pytest
import torch

from palate.policies.sequence.times import (
    BUCKETS,
    TimeVectors,
    days_since_first,
    interval_buckets,
)


@pytest.mark.parametrize(
    ("gap", "bucket"),
    [(0, 1), (1, 2), (2, 2), (3, 3), (6, 3), (7, 4), (86_400, 17), (2**31, 32), (2**50, 33)],
)
def test_intervals_fall_into_doubling_buckets(gap, bucket):
    assert interval_buckets(np.array([1_700_000_000, 1_700_000_000 + gap])).tolist() == [0, bucket]
    assert bucket < BUCKETS


def test_a_clock_that_runs_back_stands_still():
    assert interval_buckets(np.array([10, 5])).tolist() == [0, 1]
    days = days_since_first(np.array([10 * 86_400, 0, 86_400, 11 * 86_400]))
    assert days.tolist() == [0, 0, 0, 1]  # log1p of less than -1 would be NaN


def test_no_items_no_intervals():
    assert interval_buckets(np.empty(0, np.int64)).tolist() == []
    assert days_since_first(np.empty(0, np.int64)).tolist() == []


def test_days_tell_minutes_apart_late_in_the_age_of_unix():
    times = 1_700_000_000 + np.array([0, 60, 86_400])
    days = days_since_first(times)
    assert days.dtype == np.float32
    np.testing.assert_allclose(days, [0, 1 / 1440, 1], rtol=1e-6)


def test_days_count_where_wanted():
    torch.manual_seed(0)
    intervals = torch.tensor([[0, 3, 3]])
    early, late = torch.tensor([[0.0, 1, 2]]), torch.tensor([[0.0, 1, 900]])
    without, with_days = TimeVectors(4, absolute=False), TimeVectors(4, absolute=True)
    assert torch.equal(without(intervals, early), without(intervals, late))
    assert not torch.equal(with_days(intervals, early), with_days(intervals, late))
    assert torch.equal(with_days(intervals, early)[:, :2], with_days(intervals, late)[:, :2])
