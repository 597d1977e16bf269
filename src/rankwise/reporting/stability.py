"""How evenly an arm trained: spikes, divergence, the size of its steps, and the size that theory expects of them.

Adam moves every entry by about the learning rate, whatever the gradient's size. While `up` is small, a site's step is

    ΔW = s · ΔU · D,  entries of ΔU (out, r) ≈ ± lr · f,  rows of D (r, in) almost orthogonal, |row|² = 1/3 (Kaiming)
    |ΔW| ≈ lr · f · s · sqrt(r · out / 3)

with s the site's scale and f its learning-rate factor for `up`. So under alpha / r (s = alpha / r) a site of few
components takes the larger step, by 1 / sqrt(r); under alpha / sqrt(r) all ranks step alike; at a constant s the step
grows with sqrt(r). An allocation therefore moves the size of every site's step too, not only its capacity.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import fmean, median

import numpy as np

from rankwise.allocation.sites import site_group
from rankwise.ledger.results import CurvePoint, RunRow, StudyResults
from rankwise.records import SiteAllocation, StepTrace
from rankwise.reporting.collect import chosen_rate, reported_runs
from rankwise.reporting.values import ArmStability, Range, Span
from rankwise.statistics.spikes import MIN_WINDOW, spikes


def reading_order(group: str) -> tuple[int, int]:
    """Kinds one after the other, in each from early to late; what has no depth last."""
    kind, _, third = group.partition(".")
    kinds, thirds = ("attention", "mlp", "other"), ("early", "middle", "late")
    return kinds.index(kind), thirds.index(third) if third in thirds else len(thirds)


def stability_of(results: StudyResults, arm: str) -> ArmStability | None:
    """Over the arm's reported runs that trained, finished or not; None where there is none."""
    runs = [run for run in reported_runs(results, arm).values() if run.training_curve]
    if not runs:
        return None
    diverged = [run for run in runs if run.status == "diverged"]
    largest = [max(norms) for run in runs if (norms := step_norms(run).values())]
    return ArmStability(
        num_runs=len(runs),
        num_diverged=len(diverged),
        diverged_steps=Span.of(run.steps for run in diverged),
        loss_spikes=fmean(len(loss_spikes(run)) for run in runs),
        grad_spikes=fmean(len(grad_spikes(run)) for run in runs),
        num_judged=fmean(max(0, len(run.training_curve) - MIN_WINDOW) for run in runs),
        end_above_best_nats=_end_above_best(runs),
        peak_above_start_nats=fmean(_peak_above_start(run) for run in runs),
        largest_step=Range.of(largest),
        largest_step_group=_largest_group(runs),
        step_of_group=_steps(runs, median),
        first_step_of_group=_steps(runs, lambda norms: norms[0]),
        expected_of_group=_expected(runs, chosen_rate(results, arm)),
    )


def loss_spikes(run: RunRow) -> tuple[int, ...]:
    """Steps at which the training loss jumped out."""
    return _steps_where(run.training_curve, spikes([point.value for point in run.training_curve]))


def grad_spikes(run: RunRow) -> tuple[int, ...]:
    """Steps at which the norm of the whole gradient jumped out, by its logarithm."""
    logs = [math.log(point.value) if point.value > 0 else math.nan for point in run.grad_norm_curve]
    return _steps_where(run.grad_norm_curve, spikes(logs))


def _steps_where(curve: Sequence[CurvePoint], chosen: np.ndarray) -> tuple[int, ...]:
    return tuple(point.step for point, is_chosen in zip(curve, chosen, strict=True) if is_chosen)


def _end_above_best(runs: Sequence[RunRow]) -> float | None:
    curves = [[p.value for p in run.validation_curve if math.isfinite(p.value)] for run in runs]
    rises = [curve[-1] - min(curve) for curve in curves if len(curve) > 1]
    return fmean(rises) if rises else None


def _peak_above_start(run: RunRow) -> float:
    losses = [point.value for point in run.training_curve if math.isfinite(point.value)]
    return max(losses) - losses[0] if losses else 0.0


def step_norms(run: RunRow) -> dict[int, float]:
    """Traced step -> norm of the step in the effective weights of all sites, where it is a number."""
    norms = {trace.step: math.hypot(*trace.update_norms) for trace in run.traces}
    return {step: norm for step, norm in norms.items() if math.isfinite(norm)}


def _largest_group(runs: Sequence[RunRow]) -> str | None:
    traces = [trace for run in runs for trace in run.traces if math.isfinite(math.hypot(*trace.update_norms))]
    if not traces:
        return None
    largest: StepTrace = max(traces, key=lambda trace: math.hypot(*trace.update_norms))
    return max(zip(largest.update_norms, largest.groups, strict=True))[1]


def _steps(runs: Sequence[RunRow], of_steps: Callable[[list[float]], float]) -> dict[str, float]:
    """Per group one number of the steps that moved it, then the median over runs."""
    found: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        of_group: dict[str, list[float]] = defaultdict(list)
        for trace in run.traces:
            for group, norm in zip(trace.groups, trace.update_norms, strict=True):
                if math.isfinite(norm) and norm > 0:
                    of_group[group].append(norm)
        for group, norms in of_group.items():
            found[group].append(of_steps(norms))
    return {group: median(values) for group, values in found.items()}


def _expected(runs: Sequence[RunRow], learning_rate: float | None) -> dict[str, float]:
    """Per group lr · f · s · sqrt(r · out / 3), sites added as squares; the mean over runs, whose maps may differ."""
    if learning_rate is None:
        return {}
    found: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        squares: dict[str, float] = defaultdict(float)
        num_layers = 1 + max((site.layer for site in run.sites), default=0)
        for site, rank in zip(run.sites, run.spent_ranks, strict=True):
            squares[site_group(site.kind, site.layer, num_layers)] += _expected_square(site, rank, learning_rate)
        for group, square in squares.items():
            found[group].append(math.sqrt(square))
    return {group: fmean(values) for group, values in found.items()}


def _expected_square(site: SiteAllocation, rank: int, learning_rate: float) -> float:
    return (learning_rate * site.lr_factor_up * site.scale) ** 2 * rank * site.out_features / 3
