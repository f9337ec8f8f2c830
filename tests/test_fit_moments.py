"""Moments from one pass: NumPy's own, whatever the blocks and however large the offset."""

from __future__ import annotations

import numpy as np
import pytest

from armorm.features.columns import blocks
from armorm.fit.moments import broken_rows, moments_of


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_moments_are_numpys(size: int, offset: float):
    x = np.random.default_rng(0).normal(size=(1000, 5)) * np.geomspace(1e-3, 1e3, 5) + offset
    found = moments_of(x[at] for at in blocks(len(x), size))
    np.testing.assert_allclose(found.mean, x.mean(axis=0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.deviation, x.std(axis=0), rtol=1e-6)
    assert (found.n, found.broken) == (1000, 0)


def test_one_block_is_the_two_passes_to_the_bit():
    x = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    found = moments_of([x])
    mean = x.sum(axis=0, dtype=np.float64) / 500
    assert (found.mean == mean).all()
    assert (found.deviation == np.sqrt(((x - mean) ** 2).sum(axis=0) / 500)).all()


def test_broken_rows_are_counted_and_empty_blocks_count_nothing():
    x = np.ones((6, 2))
    x[1, 0], x[4] = np.nan, np.inf
    assert broken_rows(x) == 2
    assert moments_of([x[:0], x[:3], x[3:3], x[3:]]).broken == 2
    assert moments_of([x[:1], x[:0]]).deviation.tolist() == [0, 0]


def test_what_overflows_has_an_infinite_deviation_and_no_warning():
    x = np.random.default_rng(0).normal(size=(20, 2)) * 1e300
    assert np.isinf(moments_of([x[:10], x[10:]]).deviation).all()
