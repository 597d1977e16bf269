"""Tables with a line a study: what was run, with which settings, from which files, on which machine, and its flaws."""

from collections.abc import Mapping, Sequence
from typing import Any

from rankwise.reporting.format import (
    MISSING,
    format_loss,
)
from rankwise.reporting.paper.blocks import Column, Table
from rankwise.reporting.paper.facts import count_outcomes, equal_arms, format_rates, num_runs
from rankwise.reporting.paper.sources import Source


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
