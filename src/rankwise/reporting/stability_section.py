"""The section on stability: how evenly the arms trained, and whether the size of their steps explains it."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rankwise.reporting.format import MISSING, format_range, format_signed, format_size, format_span
from rankwise.reporting.markdown import bullets, escape, table
from rankwise.reporting.stability import reading_order
from rankwise.reporting.values import ArmComparison, StudyComparison
from rankwise.statistics.spikes import MIN_WINDOW, THRESHOLD, WINDOW

FEWEST_PAIRS = 6
"""Of arm and group, for saying how well the expectation fits."""


def stability_section(comparison: StudyComparison) -> str:
    """Empty before any training."""
    arms = [arm for arm in comparison.arms if arm.stability]
    if not arms:
        return ""
    header = (
        "Arm", "Runs", "Diverged (step)", "Loss spikes", "Gradient spikes", "Peak above start", "Ends above best",
        "Largest step", "in",
    )  # fmt: skip
    notes = (
        f"Spikes: mean number per run of steps more than {THRESHOLD:g} robust standard deviations above the median of "
        f"the {WINDOW} steps before; the first {MIN_WINDOW} steps are not judged. Gradient norms are judged by their "
        "logarithm, before clipping.",
        "Peak above start: highest training loss minus that of the first step, mean over runs. "
        "Ends above best: validation loss at the end minus the lowest on the way, mean over runs.",
        "Largest step: largest Frobenius norm of one optimizer step in the effective weights, scale × up · down, of "
        "all sites together (range over runs), and the group of sites that moved most in it.",
    )
    text = "## Stability\n\n" + table(header, map(_row, arms), "lrrrrrrrl") + "\n" + bullets(notes)
    return text + _step_sizes(arms, comparison.arm(comparison.baseline))


def _row(arm: ArmComparison) -> tuple[str, ...]:
    found = arm.stability
    assert found is not None
    steps = f" ({format_span(found.diverged_steps)})" if found.diverged_steps else ""
    return (
        escape(arm.name),
        str(found.num_runs),
        f"{found.num_diverged}{steps}",
        f"{found.loss_spikes:.2f}",
        f"{found.grad_spikes:.2f}",
        format_signed(found.peak_above_start_nats),
        format_signed(found.end_above_best_nats),
        format_range(found.largest_step),
        escape(found.largest_step_group or MISSING),
    )


def _step_sizes(arms: Sequence[ArmComparison], baseline: ArmComparison) -> str:
    """Measured and expected size of a step, group by group, against the baseline's."""
    reference = baseline.stability
    if reference is None or not reference.step_of_group:
        return ""
    groups = sorted(reference.step_of_group, key=reading_order)
    others = [arm for arm in arms if not arm.is_baseline]
    rows = [(f"{escape(baseline.name)}, absolute", *(format_size(reference.step_of_group[group]) for group in groups))]
    rows += [(escape(arm.name), *(_cell(_multiples(arm, baseline, group)) for group in groups)) for arm in others]
    note = (
        "Norm of a step in the group's effective weights, median over steps and runs: the baseline's, then the other "
        "arms' as multiples of it. In brackets the multiple of the first step, when `up` is still zero, and the one "
        "expected of it from lr · f · s · sqrt(r · out), sites added as squares (s scale, r rank, f learning-rate "
        "factor of `up`): Adam moves every entry of `up` by about lr · f, and the step is that times `down`. Expected "
        "only of arms whose ranks stay and that start as the baseline does."
    )
    text = "\n### Size of steps\n\n" + table(("Arm", *map(escape, groups)), rows, "l" + "r" * len(groups)) + "\n"
    return text + bullets((note, *_agreement([_multiples(arm, baseline, group) for arm in others for group in groups])))


class _Multiples(NamedTuple):
    """Of the baseline's step; None where it cannot be said."""

    median: float | None
    first: float | None
    expected: float | None


def _multiples(arm: ArmComparison, baseline: ArmComparison, group: str) -> _Multiples:
    mine, theirs = arm.stability, baseline.stability
    if mine is None or theirs is None:
        return _Multiples(None, None, None)
    expected = _ratio(mine.expected_of_group.get(group), theirs.expected_of_group.get(group))
    return _Multiples(
        _ratio(mine.step_of_group.get(group), theirs.step_of_group.get(group)),
        _ratio(mine.first_step_of_group.get(group), theirs.first_step_of_group.get(group)),
        expected if _starts_alike(arm, baseline) else None,
    )


def _starts_alike(arm: ArmComparison, baseline: ArmComparison) -> bool:
    """Whether the formula holds for both, and the same constant in it: ranks stay, and `down` is drawn alike."""
    moved = any(found.num_revisions and found.num_revisions.high for found in (arm.audit, baseline.audit))
    return arm.audit.init == baseline.audit.init and not moved


def _ratio(value: float | None, reference: float | None) -> float | None:
    return value / reference if value is not None and reference else None


def _cell(found: _Multiples) -> str:
    if found.median is None or found.first is None:
        return MISSING
    expected = "" if found.expected is None else f"; {found.expected:.2f}×"
    return f"{found.median:.2f}× ({found.first:.2f}×{expected})"


def _agreement(pairs: Sequence[_Multiples]) -> tuple[str, ...]:
    """How well the expectation orders the measured steps; nothing where it says the same of all."""
    known = [pair for pair in pairs if pair.median and pair.first and pair.expected]
    logs = np.log(np.array(known, dtype=np.float64).reshape(-1, 3))
    if len(logs) < FEWEST_PAIRS or min(np.ptp(logs, axis=0)) < 1e-6:
        return ()
    median, first = (float(np.corrcoef(logs[:, index], logs[:, 2])[0, 1]) for index in (0, 1))
    factor = math.exp(float(np.median(np.abs(logs[:, 1] - logs[:, 2]))))
    return (
        f"Over {len(logs)} pairs of arm and group the logarithm of the expected multiple correlates with that of the "
        f"first step at r = {first:.2f} and with that of the median step at r = {median:.2f}; half of the first steps "
        f"are within a factor of {factor:.2f} of what was expected.",
    )
