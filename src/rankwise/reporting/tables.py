"""The tables of a report. A column that a reader may doubt is explained below its table."""

from collections.abc import Iterable

from rankwise.reporting.format import (
    MISSING,
    format_bytes,
    format_difference,
    format_effect,
    format_estimate,
    format_loss,
    format_outcome,
    format_p,
    format_percent,
    format_rate,
    format_seconds,
    format_signed,
    format_span,
)
from rankwise.reporting.markdown import code, escape, table
from rankwise.reporting.values import ArmComparison, StudyComparison, TuningPoint


def main_table(comparison: StudyComparison) -> str:
    """What each arm stores, and what it earned against the baseline."""
    interval = f"[{comparison.level:.0%}]"
    header = (
        "Arm", "Ranks", "Parameters", "Unspent", "Learning rate", "n", f"Test loss {interval}",
        f"Difference {interval}", "p (Holm)", "Verdict",
    )  # fmt: skip
    return table(header, map(_main_row, comparison.arms), "lrrrrrrrrl")


def _main_row(arm: ArmComparison) -> tuple[str, ...]:
    edge = " (edge)" if arm.learning_rate_edge else ""
    return (
        _arm_cell(arm),
        format_span(arm.ranks),
        format_span(arm.params),
        format_span(arm.residual_params),
        format_rate(arm.learning_rate) + edge,
        f"{len(arm.finished_seeds)}/{len(arm.seeds)}",
        format_estimate(arm.test_loss),
        format_difference(arm.difference.estimate) if arm.difference else MISSING,
        format_p(arm.difference.p_holm) if arm.difference else MISSING,
        format_outcome(arm),
    )


def _arm_cell(arm: ArmComparison) -> str:
    notes = [*(["control"] if arm.is_control else []), *arm.deviations]
    return escape(arm.name) + (f" ({', '.join(notes)})" if notes else "")


def cost_table(comparison: StudyComparison) -> str:
    """Secondary scores, and what the arm cost."""
    interval = f"[{comparison.level:.0%}]"
    header = (
        "Arm", f"Perplexity {interval}", f"Token accuracy {interval}", "Time per run", "of it probe",
        "predicted", "Peak memory", "predicted",
    )  # fmt: skip
    shows_solo = any(arm.solo for arm in comparison.arms)
    alone = ("Alone: runs", "time", "peak memory", "predicted") if shows_solo else ()
    rows = ((*_cost_row(arm), *(_solo_cells(arm) if shows_solo else ())) for arm in comparison.arms)
    return table((*header, *alone), rows, "l" + "r" * (len(header) + len(alone) - 1))


def _cost_row(arm: ArmComparison) -> tuple[str, ...]:
    return (
        escape(arm.name),
        format_estimate(arm.perplexity, digits=3),
        format_estimate(arm.token_accuracy, digits=4),
        format_seconds(arm.wall_s),
        format_seconds(arm.probe_wall_s),
        format_seconds(arm.predicted_wall_s),
        format_bytes(arm.peak_memory_bytes),
        format_bytes(arm.predicted_memory_bytes),
    )


def _solo_cells(arm: ArmComparison) -> tuple[str, ...]:
    if arm.solo is None:
        return ("0", MISSING, MISSING, MISSING)
    return (
        str(arm.solo.num_runs),
        format_seconds(arm.solo.wall_s),
        format_bytes(arm.solo.peak_memory_bytes),
        format_bytes(arm.solo.predicted_memory_bytes),
    )


def evidence_table(comparison: StudyComparison) -> str:
    """Everything behind a verdict."""
    header = (
        "Arm", "n", "Difference", "p", "p (Holm)", "p (equivalence)", "Effect size", "Improved",
        "Detectable", "Seeds to decide",
    )  # fmt: skip
    return table(header, (_evidence_row(arm) for arm in comparison.arms if arm.difference), "lrrrrrrrrr")


def _evidence_row(arm: ArmComparison) -> tuple[str, ...]:
    found = arm.difference
    assert found is not None
    return (
        escape(arm.name),
        str(len(found.seeds)),
        format_signed(found.estimate.value),
        format_p(found.p),
        format_p(found.p_holm),
        format_p(found.p_equivalence),
        format_effect(found.effect_size),
        format_percent(found.improvement_frac),
        format_loss(found.minimum_detectable_nats),
        MISSING if found.seeds_to_decide is None else str(found.seeds_to_decide),
    )


def tuning_table(comparison: StudyComparison) -> str:
    """Mean validation loss of each arm at each candidate rate, the chosen one bold; empty where nothing was tuned."""
    tuned = [arm for arm in comparison.arms if arm.tuning]
    if not tuned:
        return ""
    rates = sorted({point.learning_rate for arm in tuned for point in arm.tuning})
    header = ("Arm", *(format_rate(rate) for rate in rates))
    return table(header, (_tuning_row(arm, rates) for arm in tuned), "l" + "r" * len(rates))


def _tuning_row(arm: ArmComparison, rates: Iterable[float]) -> tuple[str, ...]:
    points = {point.learning_rate: point for point in arm.tuning}
    return escape(arm.name), *(_tuning_cell(points[rate]) if rate in points else MISSING for rate in rates)


def _tuning_cell(point: TuningPoint) -> str:
    text = f"{format_loss(point.mean)} (n = {len(point.validation_losses)})" if point.validation_losses else MISSING
    text += f", {point.num_diverged} diverged" if point.num_diverged else ""
    return f"**{text}**" if point.chosen else text


def runs_table(comparison: StudyComparison) -> str:
    """Every reported run: the numbers that all means are made of."""
    rows = (
        (
            escape(arm.name),
            str(score.seed),
            code(score.run_id) if score.run_id else MISSING,
            format_rate(arm.learning_rate),
            score.status,
            format_loss(score.test_loss),
        )
        for arm in comparison.arms
        for score in arm.seeds
    )
    return table(("Arm", "Seed", "Run", "Learning rate", "Status", "Test loss"), rows, "lrlrlr")
