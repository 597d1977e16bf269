"""From runs to the arrays that statistics take, and from what they find to plain values.

S = seeds on which both arms finished, E = test examples.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rankwise.ledger.results import RunRow
from rankwise.reporting.values import Difference, Estimate
from rankwise.statistics.intervals import Interval, bootstrap_mean_interval, hierarchical_bootstrap_interval
from rankwise.statistics.paired import PairedComparison, compare_paired
from rankwise.statistics.power import minimum_detectable_difference
from rankwise.statistics.verdict import verdict


def mean_estimate(values: Sequence[float], *, level: float, rng: np.random.Generator) -> Estimate:
    """The mean over seeds with its bootstrap interval."""
    return to_estimate(float(np.mean(values)), bootstrap_mean_interval(values, level=level, rng=rng))


def perplexity_of(loss: Estimate) -> Estimate | None:
    """exp of a mean loss and of its bounds: never below 1, as a symmetric interval of few perplexities can be.

    None where the loss is too large for that.
    """
    with np.errstate(over="ignore"):
        found = [None if x is None else _known(float(np.exp(x))) for x in (loss.value, loss.low, loss.high)]
    value, low, high = found
    if value is None:
        return None
    return Estimate(value=value, low=low, high=high, num=loss.num, method=f"exp of the mean loss; {loss.method}")


def paired_comparison(
    runs: Sequence[RunRow],
    baseline_runs: Sequence[RunRow],
    *,
    level: float,
    equivalence_nats: float,
    rng: np.random.Generator,
) -> PairedComparison | None:
    """Test loss of an arm against the baseline's, run by run; None without a pair.

    The interval is over seeds and examples where every run kept the losses of the same test examples, else over seeds.
    """
    if not runs:
        return None
    compared = compare_paired(
        [run.scores["test_loss"] for run in runs],
        [run.scores["test_loss"] for run in baseline_runs],
        level=level,
        equivalence_margin=equivalence_nats,
        rng=rng,
    )
    tokens_E = _common_tokens([*runs, *baseline_runs])
    if tokens_E is None or len(runs) == 1:
        return compared
    interval = hierarchical_bootstrap_interval(
        np.stack([run.example_loss_nats for run in runs if run.example_loss_nats is not None]),
        np.stack([run.example_loss_nats for run in baseline_runs if run.example_loss_nats is not None]),
        tokens_E,
        level=level,
        rng=rng,
    )
    return replace(compared, interval=interval)


def _common_tokens(runs: Sequence[RunRow]) -> np.ndarray | None:
    """Answer tokens of each test example, where all runs scored the same ones and every loss is finite."""
    tokens_E = runs[0].example_answer_tokens
    if tokens_E is None or len(tokens_E) < 2:
        return None
    for run in runs:
        losses_E = run.example_loss_nats
        if losses_E is None or losses_E.shape != tokens_E.shape or not np.isfinite(losses_E).all():
            return None
        if run.example_answer_tokens is None or not np.array_equal(run.example_answer_tokens, tokens_E):
            return None
    return tokens_E


def describe_difference(
    compared: PairedComparison,
    runs: Sequence[RunRow],
    baseline_runs: Sequence[RunRow],
    *,
    p_holm: float,
    num_comparisons: int,
) -> Difference:
    """A comparison and its verdict as plain values; what could not be computed becomes None."""
    judged = verdict(compared, p_holm, num_comparisons=num_comparisons)
    has_chance = compared.n > 1  # one pair always gives p = 1, which would look like a finding
    return Difference(
        estimate=to_estimate(compared.mean_difference, compared.interval),
        seeds=tuple(run.seed for run in runs),
        per_seed=tuple(
            run.scores["test_loss"] - other.scores["test_loss"] for run, other in zip(runs, baseline_runs, strict=True)
        ),
        p=compared.p_value if has_chance else None,
        p_holm=p_holm if has_chance else None,
        p_equivalence=_known(compared.equivalence_p),
        effect_size=_known(compared.effect_size),
        improvement_frac=compared.probability_of_improvement,
        minimum_detectable_nats=_detectable(compared, num_comparisons),
        seeds_to_decide=judged.seeds_to_decide,
        outcome=judged.word,
        verdict=judged.sentence,
        method=compared.method,
    )


def _detectable(compared: PairedComparison, num_comparisons: int) -> float | None:
    if math.isnan(compared.sd_of_differences):
        return None
    return minimum_detectable_difference(
        compared.sd_of_differences, compared.n, level=compared.level, num_comparisons=num_comparisons
    ).difference


def to_estimate(value: float, interval: Interval) -> Estimate:
    """What cannot be computed becomes None."""
    return Estimate(
        value=value,
        low=_known(interval.low),
        high=_known(interval.high),
        num=interval.n,
        method=interval.method,
    )


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
