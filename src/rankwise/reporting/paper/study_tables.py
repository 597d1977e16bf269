"""Tables about one study, as plain cells: what each arm stores and earned, what factors do, and the runs behind it."""

from rankwise.reporting.format import (
    MISSING,
    format_difference,
    format_loss,
    format_outcome,
    format_p,
    format_percent,
    format_rate,
    format_span,
)
from rankwise.reporting.paper.blocks import Column, Table
from rankwise.reporting.paper.sources import Source
from rankwise.reporting.values import ArmComparison, StudyComparison

CONTROL, UNEQUAL, EDGE = "†", "‡", "*"


def main_table(source: Source) -> Table:
    """What each arm stores, and what it earned against the baseline."""
    found = source.comparison
    columns = (
        Column(title="Arm", align="p", width=0.24),
        *(Column(title=title, align="r") for title in ("Ranks", "Parameters", "Rate", "n", "Loss")),
        Column(title=f"Difference [{found.level:.0%}]", align="r"),
        Column(title="p", align="r"),
        Column(title="Verdict"),
    )
    return Table(
        name=f"main-{source.slug}",
        caption=f"{found.study}: test loss in nats per answer token, and its paired difference to {found.baseline} "
        "(negative is better).",
        columns=columns,
        rows=tuple(map(_main_row, found.arms)),
        notes=_main_notes(found),
        size="scriptsize",
    )


def _main_row(arm: ArmComparison) -> tuple[str, ...]:
    marks = (CONTROL if arm.is_control else "") + (UNEQUAL if arm.deviations else "")
    return (
        arm.name + marks,
        format_span(arm.ranks),
        format_span(arm.params),
        format_rate(arm.learning_rate) + (EDGE if arm.learning_rate_edge else ""),
        f"{len(arm.finished_seeds)}/{len(arm.seeds)}",
        format_loss(arm.test_loss.value if arm.test_loss else None),
        format_difference(arm.difference.estimate) if arm.difference else MISSING,
        format_p(arm.difference.p_holm) if arm.difference else MISSING,
        format_outcome(arm),
    )


def _main_notes(found: StudyComparison) -> tuple[str, ...]:
    notes = [f"n: finished of declared seeds. p: two-sided, Holm-adjusted over {len(found.family)} comparisons."]
    if any(arm.is_control for arm in found.arms):
        notes.append(f"{CONTROL} a control.")
    if any(arm.deviations for arm in found.arms):
        kinds = dict.fromkeys(word for arm in found.arms for word in arm.deviations)
        notes.append(f"{UNEQUAL} differs from the baseline in more than its ranks ({', '.join(kinds)}).")
    if any(arm.learning_rate_edge for arm in found.arms):
        notes.append(f"{EDGE} an end of the list of learning rates: a better one may lie beyond.")
    return tuple(notes)


def effects_table(source: Source) -> Table | None:
    """Main effects; None where the arms are no factorial."""
    found = source.comparison.factorial
    if found is None:
        return None
    columns = (
        Column(title="Factor", align="p", width=0.2),
        Column(title="Level", align="p", width=0.26),
        Column(title="Reference", align="p", width=0.18),
        Column(title=f"Main effect [{source.comparison.level:.0%}]", align="r"),
        Column(title="Cells", align="r"),
    )
    rows = tuple(
        (
            effect.factor,
            effect.level,
            effect.reference,
            format_difference(effect.estimate),
            f"{effect.num_cells} of {effect.num_all_cells}",
        )
        for effect in found.main_effects
    )
    notes = [
        "Difference in test loss between level and reference, averaged over cells: combinations of the other factors' "
        "levels. Intervals are over seeds and not adjusted for their number."
    ]
    if found.mixed:
        notes.append(
            f"The seed explains {format_percent(found.mixed.seed_frac)} of the variance ({found.mixed.method})."
        )
    return Table(
        name=f"effects-{source.slug}",
        caption=f"{source.comparison.study}: main effect of each level of each factor.",
        columns=columns,
        rows=rows,
        notes=tuple(notes),
    )


def runs_table(source: Source) -> Table:
    """Ids of the runs behind every number of a study."""
    found = source.comparison
    rows = [(arm.name, format_rate(arm.learning_rate), " ".join(arm.run_ids) or MISSING) for arm in found.arms]
    tuning = sorted({run for arm in found.arms for point in arm.tuning for run in point.run_ids})
    if tuning:
        rows.append(("tuning, all arms", MISSING, " ".join(tuning)))
    return Table(
        name=f"runs-{source.slug}",
        caption=f"{found.study}: runs behind its numbers, in the order of the seeds. An id is a hash of everything "
        "that can change the run's result.",
        columns=(
            Column(title="Arm", align="p", width=0.2),
            Column(title="Rate", align="r"),
            Column(title="Runs", align="p", width=0.66),
        ),
        rows=tuple(rows),
        size="tiny",
        is_long=True,
    )
