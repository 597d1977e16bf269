"""Everything behind a study's verdicts, for the appendix: evidence, secondary scores and cost, stability."""

from collections.abc import Callable, Iterable

from rankwise.reporting.format import (
    MISSING,
    format_bytes,
    format_effect,
    format_estimate,
    format_loss,
    format_p,
    format_percent,
    format_seconds,
    format_signed,
)
from rankwise.reporting.paper.blocks import Column, Table
from rankwise.reporting.paper.sources import Source
from rankwise.reporting.values import ArmComparison


def evidence_table(source: Source) -> Table | None:
    """Everything behind the verdicts; None where nothing could be compared."""
    found = source.comparison
    compared = [arm for arm in found.arms if arm.difference]
    if not compared:
        return None
    titles = ("p", "p (equiv.)", "Effect", "Improved", "Detectable", "Seeds")
    columns = (
        Column(title="Arm", align="p", width=0.24),
        Column(title=f"Test loss [{found.level:.0%}]", align="r"),
        *(Column(title=title, align="r") for title in titles),
    )
    return Table(
        name=f"evidence-{source.slug}",
        caption=f"{found.study}: the evidence behind the verdicts.",
        columns=columns,
        rows=tuple(map(_evidence_row, compared)),
        notes=(
            "p: unadjusted, two-sided. p (equiv.): that the difference is at least the equivalence margin. Effect: "
            "mean paired difference in its own standard deviations. Improved: share of seeds. "
            "Seeds: how many would decide.",
        ),
        size="scriptsize",
        is_long=True,
    )


def _evidence_row(arm: ArmComparison) -> tuple[str, ...]:
    found = arm.difference
    assert found is not None
    return (
        arm.name,
        format_estimate(arm.test_loss),
        format_p(found.p),
        format_p(found.p_equivalence),
        format_effect(found.effect_size),
        format_percent(found.improvement_frac),
        format_loss(found.minimum_detectable_nats),
        MISSING if found.seeds_to_decide is None else str(found.seeds_to_decide),
    )


def cost_table(source: Source) -> Table:
    """Secondary scores, time and memory."""
    found = source.comparison
    columns = (
        Column(title="Arm", align="p", width=0.24),
        Column(title=f"Perplexity [{found.level:.0%}]", align="r"),
        Column(title="Token accuracy", align="r"),
        *(Column(title=title, align="r") for title in ("Time", "of it probe", "predicted", "Memory", "predicted")),
    )
    return Table(
        name=f"cost-{source.slug}",
        caption=f"{found.study}: secondary scores, and what an arm cost.",
        columns=columns,
        rows=tuple(map(_cost_row, found.arms)),
        notes=(
            "Time: one run's share of its pack's, the probe included, and what was predicted for it without the probe. "
            "Memory: peak of the largest pack that one of the arm's runs was trained in, and what was predicted of it.",
        ),
        size="scriptsize",
        is_long=True,
    )


def _cost_row(arm: ArmComparison) -> tuple[str, ...]:
    return (
        arm.name,
        format_estimate(arm.perplexity, digits=3),
        format_percent(arm.token_accuracy.value if arm.token_accuracy else None),
        format_seconds(arm.wall_s),
        format_seconds(arm.probe_wall_s),
        format_seconds(arm.predicted_wall_s),
        format_bytes(arm.peak_memory_bytes),
        format_bytes(arm.predicted_memory_bytes),
    )


def stability_table(source: Source) -> Table | None:
    """How evenly the arms trained; None where it was not recorded."""
    arms = [arm for arm in source.comparison.arms if arm.stability]
    if not arms:
        return None
    columns = (
        Column(title="Arm", align="p", width=0.28),
        *(
            Column(title=title, align="r")
            for title in ("Diverged", "Loss spikes", "Peak above start", "End above best")
        ),
    )
    return Table(
        name=f"stability-{source.slug}",
        caption=f"{source.comparison.study}: how evenly the arms trained.",
        columns=columns,
        rows=tuple(map(_stability_row, arms)),
        notes=(
            "Spikes: mean number per run. Peak above start: highest training loss minus that of the first step. End "
            "above best: validation loss at the end minus the lowest on the way. Nats, means over runs.",
        ),
        size="scriptsize",
        is_long=True,
    )


def _stability_row(arm: ArmComparison) -> tuple[str, ...]:
    found = arm.stability
    assert found is not None
    return (
        arm.name,
        f"{found.num_diverged}/{found.num_runs}",
        f"{found.loss_spikes:.2f}",
        format_signed(found.peak_above_start_nats),
        format_signed(found.end_above_best_nats),
    )


APPENDIX: tuple[Callable[[Source], Table | None], ...] = (evidence_table, cost_table, stability_table)


def appendix_tables(source: Source) -> Iterable[Table]:
    return filter(None, (table(source) for table in APPENDIX))
