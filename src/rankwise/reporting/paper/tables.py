"""The tables of a paper, as plain cells. Main text: what was run and what each arm earned; appendix: all behind it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

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
from rankwise.reporting.paper.blocks import Column, Table
from rankwise.reporting.paper.facts import count_outcomes, equal_arms, format_rates, num_runs
from rankwise.reporting.paper.sources import Source
from rankwise.reporting.values import ArmComparison, StudyComparison

CONTROL, UNEQUAL, EDGE = "†", "‡", "*"


def overview_table(sources: Sequence[Source]) -> Table:
    """One line a study: its size, and what came of the arms that compete on equal terms."""
    columns = (
        Column(title="Study", align="p", width=0.17),
        *(Column(title=title, align="r") for title in ("Arms", "Seeds", "Runs", "Budget")),
        *(Column(title=title, align="r") for title in ("Better", "Worse", "Same", "Undecided", "Detectable")),
    )
    return Table(
        name="overview",
        caption="The studies. Better, worse, same (practically) and undecided count the arms that differ from the "
        "baseline in where their ranks are and in nothing else, controls included.",
        columns=columns,
        rows=tuple(map(_overview_row, sources)),
        notes=(
            "Runs: reported ones that finished. Budget: adapter parameters. Detectable: difference in nats per answer "
            "token that a comparison shows with 80% power after Holm's adjustment, median over the study.",
        ),
    )


def _overview_row(source: Source) -> tuple[str, ...]:
    found = source.comparison
    budget = next((arm.budget_params for arm in found.arms if arm.is_baseline), None)
    return (
        found.study,
        str(len(found.arms)),
        str(found.num_seeds),
        f"{num_runs(found):,}",
        f"{budget:,}" if budget else MISSING,
        *map(str, count_outcomes(equal_arms(found)).values()),
        format_loss(found.minimum_detectable_nats),
    )


def setup_table(sources: Sequence[Source]) -> Table | None:
    """Settings of each study's baseline; None where no study recorded any."""
    recorded = [source for source in sources if source.baseline_settings()]
    if not recorded:
        return None
    columns = (
        Column(title="Study", align="p", width=0.13),
        Column(title="Base", align="p", width=0.1),
        Column(title="Data (train/val./test)", align="p", width=0.2),
        Column(title="Targets", align="p", width=0.1),
        Column(title="Scaling", align="p", width=0.11),
        Column(title="Epochs, batch", align="p", width=0.08),
        Column(title="Learning rates", align="p", width=0.14),
    )
    return Table(
        name="setup",
        caption="Settings of the baseline, which every arm shares where its name does not say otherwise.",
        columns=columns,
        rows=tuple(_setup_row(source.comparison.study, source.baseline_settings()) for source in recorded),
        size="scriptsize",
    )


def _setup_row(study: str, arm: Mapping[str, Any]) -> tuple[str, ...]:
    base, data, train, targets = (arm.get(key, {}) for key in ("base", "data", "train", "targets"))
    quantization = base.get("quantization", "none")
    template = f"{data.get('template', MISSING)} template, at most {data.get('max_tokens', MISSING)} tokens"
    splits = "/".join(str(data.get(split, MISSING)) for split in ("train", "validation", "test"))
    return (
        study,
        f"{base.get('model', MISSING)}" + ("" if quantization == "none" else f", {quantization}"),
        f"{data.get('source', MISSING)} ({splits}), {template}",
        targets if isinstance(targets, str) else ", ".join(map(str, targets)) or MISSING,
        _scaling(arm.get("scaling", {})),
        f"{train.get('epochs', MISSING)}, {train.get('batch_size', MISSING)}",
        format_rates(train.get("learning_rates", ())),
    )


def _scaling(scaling: Mapping[str, Any]) -> str:
    rule = scaling.get("rule", MISSING)
    key = "scale" if rule == "constant" else "alpha"
    return f"{rule}, {key} {scaling[key]:g}" if isinstance(scaling.get(key), (int, float)) else str(rule)


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


def cost_table(source: Source) -> Table:
    """Secondary scores, time and memory."""
    found = source.comparison
    columns = (
        Column(title="Arm", align="p", width=0.24),
        Column(title=f"Perplexity [{found.level:.0%}]", align="r"),
        Column(title="Token accuracy", align="r"),
        *(Column(title=title, align="r") for title in ("Time", "of it probe", "Memory", "predicted")),
    )
    return Table(
        name=f"cost-{source.slug}",
        caption=f"{found.study}: secondary scores, and what an arm cost.",
        columns=columns,
        rows=tuple(map(_cost_row, found.arms)),
        notes=(
            "Time: one run's share of its pack's, the probe included. Memory: peak of the largest pack that one of the "
            "arm's runs was trained in, and what was predicted for it.",
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
        format_bytes(arm.peak_memory_bytes),
        format_bytes(arm.predicted_memory_bytes),
    )


def flaws_table(sources: Sequence[Source]) -> Table | None:
    """One line a study and one column a flaw; None where no study was judged."""
    judged = [source.comparison for source in sources if source.comparison.flaws]
    if not judged:
        return None
    words = {True: "no", False: "yes", None: "open"}
    flaws = judged[0].flaws
    return Table(
        name="flaws",
        caption="Which of the known flaws of comparing rank allocations a study has, judged by what its ledger holds.",
        columns=(
            Column(title="Study", align="p", width=0.2),
            *(Column(title=str(number), align="r") for number in range(1, len(flaws) + 1)),
        ),
        rows=tuple((found.study, *(words[check.is_avoided] for check in found.flaws)) for found in judged),
        notes=("; ".join(f"{number}: {check.flaw}" for number, check in enumerate(flaws, 1)) + ".",),
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


def digests_table(sources: Sequence[Source]) -> Table:
    """The files that the paper was written from."""
    return Table(
        name="digests",
        caption="SHA-256 of each study's comparison.json, which holds all numbers of this paper at full precision.",
        columns=(Column(title="Study"), Column(title="SHA-256")),
        rows=tuple((source.comparison.study, source.sha256) for source in sources),
        size="scriptsize",
    )


def environment_table(sources: Sequence[Source]) -> Table | None:
    """What the studies ran on, each value once; None where it was not recorded."""
    recorded = [source.comparison for source in sources if source.comparison.environment]
    if not recorded:
        return None
    studies: dict[tuple[str, str], list[str]] = {}
    for found in recorded:
        for key, value in found.environment.items():
            studies.setdefault((key, value), []).append(found.study)
    return Table(
        name="environment",
        caption="What the studies ran on, as recorded by the last session that trained for each.",
        columns=(
            Column(title="", align="p", width=0.12),
            Column(title="Value", align="p", width=0.4),
            Column(title="Studies", align="p", width=0.42),
        ),
        rows=tuple(
            (key.replace("_", " "), value, "all" if len(names) == len(sources) else ", ".join(names))
            for (key, value), names in sorted(studies.items())
        ),
        size="scriptsize",
        is_long=True,
    )


APPENDIX: tuple[Callable[[Source], Table | None], ...] = (evidence_table, cost_table, stability_table)


def appendix_tables(source: Source) -> Iterable[Table]:
    return filter(None, (table(source) for table in APPENDIX))


def warnings_table(sources: Sequence[Source]) -> Table | None:
    """What the reports themselves warn of; None where nothing."""
    warned = [source.comparison for source in sources if source.comparison.warnings]
    rows = tuple((found.study, " ".join(found.warnings)) for found in warned)
    if not rows:
        return None
    return Table(
        name="warnings",
        caption="What the reports warn of.",
        is_long=True,
        columns=(Column(title="Study", align="p", width=0.16), Column(title="Warning", align="p", width=0.78)),
        rows=rows,
        size="scriptsize",
    )
