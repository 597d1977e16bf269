"""The answer of a sweep in words: what rank buys, which layers to adapt, what fewer bits cost."""

from collections.abc import Iterable
from itertools import pairwise

from rankwise.reporting.format import format_bytes, format_difference, format_rate, format_seconds, format_signed
from rankwise.reporting.markdown import bullets, escape
from rankwise.reporting.sweeps import per_doubling
from rankwise.reporting.values import ArmComparison, Contrast, Estimate, StudyComparison, Sweep


def answers_section(comparison: StudyComparison) -> str:
    """One bullet a statement; empty where no arms differ in one setting alone."""
    lines = [line for sweep in comparison.sweeps for line in _answer(sweep, comparison)]
    if not lines:
        return ""
    note = (
        f"Differences are paired by seed, with {comparison.level:.0%} intervals that are not adjusted for their "
        "number; the verdict below adjusts.\n"
    )
    return f"## Answer\n\n{bullets(lines)}\n{note}"


def _answer(sweep: Sweep, comparison: StudyComparison) -> list[str]:
    if not sweep.contrasts:
        return []
    match sweep.axis:
        case "rank":
            return [*_of_ranks(sweep), *_of_rates(sweep, comparison), *_of_rank_costs(sweep, comparison)]
        case "targets":
            return [*_of_targets(sweep, comparison)]
    return [*_of_quantizations(sweep, comparison)]


def _of_ranks(sweep: Sweep) -> Iterable[str]:
    arms = list(sweep.levels)
    ranks = [int(level.removeprefix("rank ")) for level in sweep.levels.values()]
    first, last = arms[0], arms[-1]
    overall = sweep.contrast(last, first)
    if overall:
        each = per_doubling(overall.estimate, ranks[0], ranks[-1])
        yield (
            f"**Rank {ranks[0]} to {ranks[-1]}** {_moves(overall.estimate)} test loss by {_size(overall.estimate)} "
            f"nats per answer token, n = {overall.estimate.num}{_shown(overall)}: {format_signed(each)} per doubling "
            "of the rank."
        )
    steps = []
    for (lower, higher), (low_rank, high_rank) in zip(pairwise(arms), pairwise(ranks), strict=True):
        if step := sweep.contrast(higher, lower):
            steps.append(f"{low_rank} → {high_rank}: {format_difference(step.estimate)}")
    yield f"Step by step: {'; '.join(steps)}.{_bend(sweep.bend)}"
    enough = _smallest_sufficient(sweep, arms)
    if enough:
        yield enough


def _bend(bend: Estimate | None) -> str:
    if bend is None:
        return ""
    difference = f"{format_difference(bend)} nats per doubling, upper half of the range minus lower half"
    if bend.low is None or bend.high is None or bend.low <= 0 <= bend.high:
        return f" Whether doublings buy less as the rank grows is not shown (gain {difference})."
    grows = "more" if bend.value > 0 else "less"
    return f" Doublings buy {grows} as the rank grows (gain {difference})."


def _smallest_sufficient(sweep: Sweep, arms: list[str]) -> str:
    """The rank after which no single doubling is shown to lower the loss."""
    last_gain = 0
    for index, (lower, higher) in enumerate(pairwise(arms), start=1):
        step = sweep.contrast(higher, lower)
        if step and step.estimate.high is not None and step.estimate.high < 0:
            last_gain = index
    level = sweep.levels[arms[last_gain]]
    if last_gain == len(arms) - 1:
        return f"The last doubling, to {level}, still lowers the loss: more may help."
    return f"No single doubling beyond {level} is shown to lower the loss."


def _of_rates(sweep: Sweep, comparison: StudyComparison) -> Iterable[str]:
    """`4e-3 at rank 2; 8e-3 at rank 4, 8, 16: within a factor of 2, ranks differ by a factor of 8`."""
    ranks_of: dict[float, list[int]] = {}
    for arm, level in sweep.levels.items():
        found = comparison.arm(arm)
        if found.tuning and found.learning_rate is not None:
            ranks_of.setdefault(found.learning_rate, []).append(int(level.removeprefix("rank ")))
    ranks = [rank for found in ranks_of.values() for rank in found]
    if len(ranks) < 2:
        return
    scaling = escape(comparison.arm(next(iter(sweep.levels))).audit.scaling)
    edge = _edge(sweep, comparison)
    if len(ranks_of) == 1:
        yield f"Best learning rate ({scaling}): {format_rate(next(iter(ranks_of)))} at every rank{edge}."
        return
    listed = "; ".join(
        f"{format_rate(rate)} at rank {', '.join(map(str, ranks_of[rate]))}" for rate in sorted(ranks_of)
    )
    yield (
        f"Best learning rates ({scaling}): {listed}: within a factor of {max(ranks_of) / min(ranks_of):.3g}, where "
        f"ranks differ by a factor of {max(ranks) / min(ranks):.3g}{edge}."
    )


def _edge(sweep: Sweep, comparison: StudyComparison) -> str:
    is_edge = any(comparison.arm(arm).learning_rate_edge for arm in sweep.levels)
    return "; some lie at the edge of the list, so better ones may lie beyond" if is_edge else ""


def _of_rank_costs(sweep: Sweep, comparison: StudyComparison) -> Iterable[str]:
    first, *_, last = sweep.levels
    ends = [comparison.arm(first), comparison.arm(last)]
    if all(arm.solo for arm in ends):
        yield (
            f"Alone, a run of {sweep.levels[first]} takes {_alone(ends[0])}, one of {sweep.levels[last]} "
            f"{_alone(ends[1])}."
        )


def _of_targets(sweep: Sweep, comparison: StudyComparison) -> Iterable[str]:
    reference = next(iter(sweep.levels))
    ordered = sorted((c for c in sweep.contrasts if c.reference == reference), key=lambda c: c.estimate.value)
    clauses = [f"{_named(c.arm, comparison)} {format_difference(c.estimate)}{_shown(c)}" for c in ordered]
    yield (
        f"**{sweep.held[0].upper()}{sweep.held[1:]}**, test loss against {escape(reference)} in nats per answer token, "
        f"n = {ordered[0].estimate.num}: {'; '.join(clauses)}.{_among_others(sweep, reference)}"
    )


def _among_others(sweep: Sweep, reference: str) -> str:
    return "".join(
        f" {escape(c.arm)} against {escape(c.reference)}: {format_difference(c.estimate)}{_shown(c)}."
        for c in sweep.contrasts
        if c.reference != reference
    )


def _named(arm: str, comparison: StudyComparison) -> str:
    ranks = comparison.arm(arm).ranks
    if ranks is None:
        return escape(arm)
    width = str(ranks.low) if ranks.low == ranks.high else f"{ranks.low}–{ranks.high}"
    return f"{escape(arm)} (rank {width})"


def _of_quantizations(sweep: Sweep, comparison: StudyComparison) -> Iterable[str]:
    reference = comparison.arm(next(iter(sweep.levels)))
    held = f" {sweep.held}" if sweep.held else ""
    for contrast in sweep.contrasts:
        arm = comparison.arm(contrast.arm)
        text = (
            f"**{escape(sweep.levels[arm.name])}**{held} {_moves(contrast.estimate)} test loss by "
            f"{_size(contrast.estimate)} nats per answer token against {escape(sweep.levels[reference.name])}, "
            f"n = {contrast.estimate.num}{_shown(contrast)}"
        )
        if arm.solo and reference.solo:
            text += f"; alone, a run takes {_alone(arm)} instead of {_alone(reference)}"
        yield f"{text}."


def _alone(arm: ArmComparison) -> str:
    """`815 MiB and 52.0 s of wall time`; memory first, because other work on the machine does not change it."""
    assert arm.solo is not None
    time = f"{format_seconds(arm.solo.wall_s)} of wall time"
    if arm.solo.peak_memory_bytes is None:
        return time
    return f"{format_bytes(arm.solo.peak_memory_bytes)} and {time}"


def _moves(estimate: Estimate) -> str:
    return "lowers" if estimate.value < 0 else "raises"


def _size(estimate: Estimate) -> str:
    """Without a sign, because the verb has it: `0.0780 [0.0150, 0.1400]`."""
    if estimate.low is None or estimate.high is None:
        return f"{abs(estimate.value):.4f}"
    sign = -1 if estimate.value < 0 else 1
    low, high = sorted((sign * estimate.low, sign * estimate.high))
    return f"{abs(estimate.value):.4f} [{_signed_if_negative(low)}, {_signed_if_negative(high)}]"


def _signed_if_negative(value: float) -> str:
    return format_signed(value) if value < 0 else f"{value:.4f}"


def _shown(contrast: Contrast) -> str:
    low, high = contrast.estimate.low, contrast.estimate.high
    return "" if low is None or high is None or low > 0 or high < 0 else " (not told apart)"
