import pytest

from rankwise.reporting.format import (
    format_bytes,
    format_difference,
    format_effect,
    format_estimate,
    format_loss,
    format_p,
    format_percent,
    format_rate,
    format_seconds,
    format_signed,
    format_span,
)
from rankwise.reporting.values import Estimate, Span

ALL = (
    format_bytes, format_difference, format_effect, format_estimate, format_loss, format_p, format_percent,
    format_rate, format_seconds, format_signed, format_span,
)  # fmt: skip


@pytest.mark.parametrize("function", ALL)
def test_what_is_missing_is_a_dash_and_never_zero(function):
    assert function(None) == "–"


def estimate(low, high):
    return Estimate(value=-0.01234, low=low, high=high, num=3, method="t")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (format_signed(0.01234), "+0.0123"),
        (format_signed(-0.01234), "−0.0123"),
        (format_signed(-0.00001), "0.0000"),
        (format_difference(estimate(-0.02, 0.01)), "−0.0123 [−0.0200, +0.0100]"),
        (format_difference(estimate(None, None)), "−0.0123"),
        (format_estimate(estimate(-0.02, 0.01), digits=2), "-0.01 [-0.02, 0.01]"),
        (format_p(0.0312), "0.031"),
        (format_p(0.0002), "< 0.001"),
        (format_p(1.0), "1.000"),
        (format_span(Span(low=8, high=8)), "8"),
        (format_span(Span(low=1000, high=1300)), "1,000–1,300"),
        (format_rate(3e-4), "3e-4"),
        (format_rate(1.25e-3), "1.25e-3"),
        (format_rate(1.0), "1e0"),
        (format_seconds(9.84), "9.8 s"),
        (format_seconds(59.96), "60.0 s"),
        (format_seconds(125), "2 min 05 s"),
        (format_seconds(3725), "1 h 02 min"),
        (format_bytes(731_906_048), "698 MiB"),
        (format_bytes(3 * 2**30), "3.00 GiB"),
        (format_percent(0.875), "87.5%"),
        (format_effect(-1.234), "−1.23"),
    ],
)
def test_numbers_read_well(text, expected):
    assert text == expected


def test_a_span_ignores_what_is_missing():
    assert Span.of([None, 3, 5]) == Span(low=3, high=5)
    assert Span.of([None]) is None
