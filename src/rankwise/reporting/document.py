"""RESULTS.md: verdict first, then the numbers behind it, then how they came about."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rankwise.ledger.results import StudyResults
from rankwise.reporting.audit_section import audit_section
from rankwise.reporting.benchmarks_section import benchmarks_section
from rankwise.reporting.collect import measures_signals
from rankwise.reporting.effects_section import main_effects_section
from rankwise.reporting.flaws import flaws_line, flaws_section
from rankwise.reporting.format import MISSING, format_count, format_error, format_names, format_percent
from rankwise.reporting.markdown import bullets, code, code_block, details, escape, table
from rankwise.reporting.ordering import ordering_section
from rankwise.reporting.quantization_section import quantization_section
from rankwise.reporting.secondary_section import secondary_section
from rankwise.reporting.stability_section import stability_section
from rankwise.reporting.style import FigureFiles
from rankwise.reporting.sweeps_section import answers_section
from rankwise.reporting.tables import cost_table, evidence_table, main_table, runs_table, tuning_table
from rankwise.reporting.values import PredictionError, StudyComparison
from rankwise.reporting.verdicts import completeness, failures_section, verdict_section

_SPLIT_COLUMNS = {"num_examples": "Examples", "num_tokens": "Tokens", "num_answer_tokens": "Answer tokens"}


def render_results(
    results: StudyResults, comparison: StudyComparison, figures: Sequence[FigureFiles], *, command: str | None
) -> str:
    """The whole document."""
    by_name = {figure.name: _embed(figure) for figure in figures}
    parts = [
        f"# {escape(results.name)}\n",
        completeness(comparison),
        f"**Hypothesis.** {escape(results.hypothesis)}\n",
        answers_section(comparison),
        by_name.get("pareto", ""),
        "## Verdict\n",
        verdict_section(comparison),
        flaws_line(comparison),
        by_name.get("differences", ""),
        _warnings(comparison),
        "## Results\n",
        _results(comparison),
        by_name.get("loss_against_params", ""),
        "### Secondary scores and cost\n",
        _costs(comparison),
        by_name.get("predictions", ""),
        secondary_section(comparison),
        benchmarks_section(comparison),
        _evidence(comparison),
        ordering_section(comparison),
        main_effects_section(comparison),
        "## Rank maps\n" if "rank_maps" in by_name else "",
        by_name.get("rank_maps", ""),
        by_name.get("ranks_over_time", ""),
        by_name.get("signals", ""),
        _without_signal(results),
        "## Learning curves\n" if "learning_curves" in by_name else "",
        by_name.get("learning_curves", ""),
        stability_section(comparison),
        by_name.get("stability", ""),
        quantization_section(results.quantization_errors),
        by_name.get("quantization_error", ""),
        _tuning(comparison),
        by_name.get("tuning", ""),
        audit_section(comparison),
        "## Diverged and missing runs\n",
        failures_section(comparison),
        flaws_section(comparison),
        _data(results.data_summary),
        _methods(comparison),
        _environment(results.environment),
        _reproduce(comparison, command),
    ]
    return "\n".join(part.strip("\n") + "\n" for part in parts if part)


def _embed(figure: FigureFiles) -> str:
    links = f"[PDF](figures/{figure.name}.pdf), [data](figures/{figure.name}.csv)"
    title = figure.name.replace("_", " ")
    return f"![{title}](figures/{figure.name}.png)\n\n*{escape(figure.caption)}* {links}\n"


def _warnings(comparison: StudyComparison) -> str:
    if not comparison.warnings:
        return ""
    return "## Warnings\n\n" + bullets(map(escape, comparison.warnings))


def _results(comparison: StudyComparison) -> str:
    notes = [
        "Losses are nats per answer token of the test split; lower is better.",
        "n: finished of declared seeds. Ranks and parameters are ranges where they differ between sites or runs.",
    ]
    if comparison.family:
        notes += [
            f"Difference: the arm minus {escape(comparison.baseline)}, paired by seed; negative is better. The test "
            "loss's own interval contains what all arms share, so compare differences.",
            f"p (Holm): two-sided, adjusted for {format_count(len(comparison.family), 'comparison')}. "
            f"Practically the same: shown to differ by less than {comparison.equivalence_nats:g} nats.",
        ]
    return main_table(comparison) + "\n" + bullets(notes)


def _costs(comparison: StudyComparison) -> str:
    note = (
        "Time is one run's share of its pack's, the probe included, beside what was predicted for it without the "
        "probe. Peak memory is that of the largest pack the arm's runs were trained in, beside what was predicted for "
        "it. – is not measured, never zero.\n"
    )
    solo = (
        "Alone: of those of the arm's runs that shared their pack with no other, the mean time and the largest peak of "
        "memory.\n"
    )
    alone = solo if any(arm.solo for arm in comparison.arms) else ""
    return f"{cost_table(comparison)}\n{note}{alone}\n{_predictions(comparison)}"


def _predictions(comparison: StudyComparison) -> str:
    """How well memory and time of packs were known before they trained."""
    memory = _prediction("memory", comparison.memory_prediction, "the largest pack")
    time = _prediction("time", comparison.time_prediction, "all packs together")
    found = f"Error of the predictions (predicted / measured − 1; tuning included): {memory}; {time}."
    is_old = not (comparison.memory_prediction or comparison.time_prediction) and any(
        arm.audit.num_runs for arm in comparison.arms
    )
    return found + (" Ledgers keep what they need from version 5 on.\n" if is_old else "\n")


def _prediction(what: str, found: PredictionError | None, whole: str) -> str:
    if found is None:
        return f"{what} {MISSING}"
    return (
        f"{what} of {format_count(found.num_packs, 'pack')} {format_percent(found.median_frac)} in the median, "
        f"{format_error(found.largest_frac)} at worst, {format_error(found.study_frac)} for {whole}"
    )


def _evidence(comparison: StudyComparison) -> str:
    if not any(arm.difference for arm in comparison.arms):
        return ""
    notes = (
        "p (equivalence): small where the difference is shown to be smaller than the equivalence margin.",
        "Effect size: mean of the paired differences in their own standard deviations (Hedges' correction).",
        "Improved: share of seeds on which the arm beat the baseline, ties counted half.",
        "Detectable: the difference in nats that these seeds show with 80% power after adjustment.",
        "Seeds to decide: how many would show a difference of the size seen, or of the margin if that is larger.",
    )
    return "### Evidence behind the verdicts\n\n" + evidence_table(comparison) + "\n" + bullets(notes)


def _without_signal(results: StudyResults) -> str:
    """Why the figure of signals lacks arms: their runs are of a time when signals were not kept."""
    arms = [
        arm
        for arm in results.arm_names
        if measures_signals(results, arm) and any(run.sites and run.signal is None for run in results.reported(arm))
    ]
    if not arms:
        return ""
    return (
        f"What {escape(format_names(arms))} went by at each site is not known, so it cannot be shown against the "
        "ranks: ledgers keep it from version 6 on.\n"
    )


def _tuning(comparison: StudyComparison) -> str:
    text = tuning_table(comparison)
    if not text:
        return "## Learning rates\n\nNothing was tuned: each arm has one learning rate.\n"
    note = "Mean validation loss on the tuning seeds, which are not reported; bold: chosen. Test data chose nothing.\n"
    return f"## Learning rates\n\n{text}\n{note}"


def _data(summary: Mapping[str, Any]) -> str:
    if not summary:
        return ""
    splits = {name: split for name, split in summary.get("splits", {}).items() if isinstance(split, Mapping)}
    rows = ([escape(name), *(_count(split.get(key)) for key in _SPLIT_COLUMNS)] for name, split in splits.items())
    counts = table(("Split", *_SPLIT_COLUMNS.values()), rows, "lrrr") if splits else ""
    rest = bullets(f"{escape(key)}: {value}" for key, value in _flatten(summary) if not key.startswith("splits"))
    return "## Data\n\n" + "\n".join(part for part in (counts, rest) if part)


def _flatten(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested counts as lines: {"excluded": {"over_long": 3}} -> ("excluded over long", "3")."""
    for key, value in mapping.items():
        name = f"{prefix}{key.removeprefix('num_').replace('_', ' ')}"
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{name} ")
        elif not isinstance(value, (list, tuple)):
            yield name, _count(value)


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else "–" if value is None else escape(value)


def _methods(comparison: StudyComparison) -> str:
    """How each number was computed: method, n and level, as the statistics themselves state them."""
    arms = comparison.arms
    lines = (
        f"Primary score: test loss in nats per answer token. Level {comparison.level:.0%}. {comparison.num_seeds} "
        "declared seeds, paired: a seed is one data order and one draw of initial adapters, the same for every arm.",
        *_named("Interval of the difference", {a.name: a.difference.estimate.method for a in arms if a.difference}),
        *_named("Interval of the test loss", {a.name: a.test_loss.method for a in arms if a.test_loss}),
        *_named("p", {a.name: a.difference.method for a in arms if a.difference}),
        f"Declared family of Holm's adjustment: {escape(', '.join(comparison.family) or 'no comparison')}. "
        "A comparison that cannot be made yet counts with p = 1.",
        f"Equivalence margin: {comparison.equivalence_nats:g} nats.",
        "Learning rates: chosen per arm by mean validation loss on tuning seeds that are not reported.",
        "Only finished runs are in a mean. Diverged and missing ones are named; their seeds are left out of the pairs.",
    )
    return "## Methods\n\n" + bullets(lines)


def _named(what: str, method_of: Mapping[str, str]) -> Iterator[str]:
    """One line a method; the arms are named where not all share it."""
    methods = list(dict.fromkeys(method_of.values()))
    for method in methods:
        arms = ", ".join(escape(arm) for arm, used in method_of.items() if used == method)
        yield f"{what}{f' ({arms})' if len(methods) > 1 else ''}: {escape(method)}."


def _environment(environment: Mapping[str, str]) -> str:
    if not environment:
        return ""
    rows = ((escape(key.replace("_", " ")), escape(value)) for key, value in sorted(environment.items()))
    return "## Environment\n\n" + table(("What", "Value"), rows, "ll")


def _reproduce(comparison: StudyComparison, command: str | None) -> str:
    text = "## How to reproduce\n\n"
    if command:
        text += code_block(command) + "\n"
    text += (
        "A run's id is the hash of everything that can change its result: the same id is the same run. "
        "All numbers of this page at full precision: [comparison.json](comparison.json).\n\n"
    )
    tuning = sorted({run_id for arm in comparison.arms for point in arm.tuning for run_id in point.run_ids})
    text += details("Reported runs, by arm and seed", runs_table(comparison))
    if tuning:
        text += "\n" + details("Tuning runs", " ".join(map(code, tuning)) + "\n")
    return text
