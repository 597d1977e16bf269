"""Letters: S seeds, T points."""

import numpy as np
import pytest

from rankwise.statistics.curves import curve_band
from rankwise.statistics.intervals import t_mean_interval


def test_the_band_is_the_t_interval_at_each_point():
    values_ST = np.random.default_rng(0).normal(size=(5, 12))
    band = curve_band(values_ST, level=0.9)
    for point, column_S in enumerate(values_ST.T):
        expected = t_mean_interval(column_S, level=0.9)
        assert band.mean_T[point] == pytest.approx(column_S.mean())
        assert (band.low_T[point], band.high_T[point]) == pytest.approx((expected.low, expected.high))
    assert (band.n, band.level) == (5, 0.9)


def test_one_seed_has_a_mean_and_no_band():
    band = curve_band([[3.0, 2.0, 1.0]], level=0.95)
    assert band.mean_T.tolist() == [3.0, 2.0, 1.0]
    assert np.isnan(band.low_T).all()
    assert np.isnan(band.high_T).all()
    assert band.method == "none: one seed"


def test_curves_that_agree_have_a_band_of_no_width():
    band = curve_band(np.ones((3, 4)), level=0.95)
    assert band.low_T.tolist() == band.high_T.tolist() == [1.0] * 4


@pytest.mark.parametrize("curves", [np.empty((0, 3)), [1.0, 2.0], [[1.0, np.nan], [1.0, 2.0]]])
def test_incomplete_curves_are_refused(curves):
    with pytest.raises(ValueError, match="curves"):
        curve_band(curves, level=0.95)
