"""Every score of an evaluation, in one table: what each example adds, and what the totals make of it.

A score is a function of sums over examples: loss is the sum of losses over the sum of tokens, exact match the sum of
hits over the number of examples. So one rule gives every score its interval (examples are drawn again), and the
difference of two models a paired one (both are drawn with the same examples).

E = examples, S = sums of one score, B = bins of confidence. docs/evaluation.md says what each number means.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rankwise.evaluation.calibration import calibration_error
from rankwise.evaluation.loss import Scores
from rankwise.statistics.intervals import Interval
from rankwise.statistics.totals import bootstrap_totals_interval, share_interval
from rankwise.streams import stream

LEVEL = 0.95
"""Of all intervals."""
MAX_LOG_PERPLEXITY = math.log(1e300)


@dataclass(frozen=True, kw_only=True, eq=False)
class AnswerScores:
    """Answers that a model wrote, beside the expected ones."""

    texts: tuple[str, ...]
    tokens_E: np.ndarray
    """Written, the end token included."""
    exact_E: np.ndarray
    """1 where the answer is the expected one, white space around it aside."""
    rouge_l_E: np.ndarray
    chrf_E: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class ExampleScores:
    """What one model did with each example."""

    expected: Scores
    """Of the expected answers."""
    answer_bytes_E: np.ndarray
    """UTF-8 bytes of the expected answers."""
    written: AnswerScores | None = None
    """None where nothing was generated."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One score."""

    sums: Callable[[ExampleScores], np.ndarray | None]
    """What each example adds (E, S); None where the score was not measured."""
    value: Callable[[np.ndarray], np.ndarray]
    """From totals (..., S) to scores (...)."""
    better: Literal["lower", "higher", "neither"] = "lower"
    is_share: bool = False
    """Whether each example adds 0 or 1, so that the interval has a better form than a bootstrap."""


def _ratio(totals: np.ndarray) -> np.ndarray:
    return totals[..., 0] / totals[..., 1]


def _perplexity(totals: np.ndarray) -> np.ndarray:
    return np.exp(np.minimum(_ratio(totals), MAX_LOG_PERPLEXITY))


def _bits_per_byte(totals: np.ndarray) -> np.ndarray:
    return _ratio(totals) / math.log(2)


def _per(numerator_E: np.ndarray, denominator_E: np.ndarray) -> np.ndarray:
    return np.stack([numerator_E, denominator_E], axis=1).astype(np.float64)


def _mean(values_E: np.ndarray) -> np.ndarray:
    return _per(values_E, np.ones(len(values_E)))


def _loss(scores: ExampleScores) -> np.ndarray:
    return _per(scores.expected.loss_nats_E, scores.expected.answer_tokens_E)


def _of_written(values: Callable[[AnswerScores], np.ndarray]) -> Callable[[ExampleScores], np.ndarray | None]:
    return lambda scores: None if scores.written is None else _mean(values(scores.written))


METRICS: Mapping[str, Metric] = {
    "loss_nats": Metric(sums=_loss, value=_ratio),
    "perplexity": Metric(sums=_loss, value=_perplexity),
    "bits_per_byte": Metric(
        sums=lambda scores: _per(scores.expected.loss_nats_E, scores.answer_bytes_E), value=_bits_per_byte
    ),
    "token_accuracy": Metric(
        sums=lambda scores: _per(scores.expected.correct_tokens_E, scores.expected.answer_tokens_E),
        value=_ratio,
        better="higher",
    ),
    "calibration_error": Metric(
        sums=lambda scores: np.column_stack([scores.expected.confidence_gap_EB, scores.expected.answer_tokens_E]),
        value=calibration_error,
    ),
    "exact_match": Metric(
        sums=_of_written(lambda written: written.exact_E), value=_ratio, better="higher", is_share=True
    ),
    "rouge_l": Metric(sums=_of_written(lambda written: written.rouge_l_E), value=_ratio, better="higher"),
    "chrf": Metric(sums=_of_written(lambda written: written.chrf_E), value=_ratio, better="higher"),
    "expected_answer_tokens": Metric(
        sums=lambda scores: _mean(scores.expected.answer_tokens_E), value=_ratio, better="neither"
    ),
    "written_answer_tokens": Metric(sums=_of_written(lambda written: written.tokens_E), value=_ratio, better="neither"),
}
"""By the name that JSON documents and tables use."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A score, or a difference of two."""

    value: float | None
    """None: not measured, or not a finite number."""
    interval: Interval | None = None
    """Over examples; None with the value, and where `evaluate` was not asked for one."""


def summarise(scores: ExampleScores) -> dict[str, Estimate]:
    """Every metric over all examples."""
    return {name: _estimate(name, metric, metric.sums(scores)) for name, metric in METRICS.items()}


def compare(scores: ExampleScores, baseline: ExampleScores) -> dict[str, Estimate]:
    """Every metric's difference, `scores` less `baseline`, on the same examples in the same order."""
    return {name: _difference(name, metric, scores, baseline) for name, metric in METRICS.items()}


def _estimate(name: str, metric: Metric, sums_ES: np.ndarray | None) -> Estimate:
    if sums_ES is None or not np.isfinite(sums_ES).all():
        return Estimate(value=None)
    value = float(metric.value(sums_ES.sum(axis=0)))
    if not math.isfinite(value) or value >= math.exp(MAX_LOG_PERPLEXITY):
        return Estimate(value=None)
    if metric.is_share:
        return Estimate(value=value, interval=share_interval(round(sums_ES[:, 0].sum()), len(sums_ES), level=LEVEL))
    return Estimate(value=value, interval=_interval(name, sums_ES, metric.value))


def _difference(name: str, metric: Metric, scores: ExampleScores, baseline: ExampleScores) -> Estimate:
    mine, theirs = metric.sums(scores), metric.sums(baseline)
    if mine is None or theirs is None or not (np.isfinite(mine).all() and np.isfinite(theirs).all()):
        return Estimate(value=None)
    num_sums = mine.shape[1]

    def difference(totals: np.ndarray) -> np.ndarray:
        return metric.value(totals[..., :num_sums]) - metric.value(totals[..., num_sums:])

    both_ES = np.concatenate([mine, theirs], axis=1)
    value = float(difference(both_ES.sum(axis=0)))
    return Estimate(value=value, interval=_interval(f"{name} difference", both_ES, difference))


def _interval(name: str, sums_ES: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]) -> Interval:
    return bootstrap_totals_interval(sums_ES, statistic, level=LEVEL, rng=stream(0, "evaluate", name))
