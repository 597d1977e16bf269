"""The ten known flaws of comparing rank allocations, each judged for one study by what its ledger holds.

They are what published comparisons were criticised for (docs/reading-the-report.md has the sources). A flaw is avoided
only where the ledger shows it; what was declared, such as an arm of another budget, is named.
"""

from collections.abc import Callable, Sequence

from rankwise.ledger.results import StudyResults
from rankwise.reporting.cautions import has_uneven_scales, lacks_budget
from rankwise.reporting.collect import candidate_rates, reported_runs
from rankwise.reporting.format import format_count, format_seconds
from rankwise.reporting.markdown import escape, table
from rankwise.reporting.values import ArmComparison, FlawCheck, StudyComparison
from rankwise.statistics.power import smallest_decidable_n

_Judgement = tuple[bool | None, str]
_NOTHING: _Judgement = (None, "No run has finished yet.")


def find_flaws(results: StudyResults, arms: Sequence[ArmComparison]) -> tuple[FlawCheck, ...]:
    """All ten, in order."""
    checks: dict[str, Callable[[StudyResults, Sequence[ArmComparison]], _Judgement]] = {
        "the sum of ranks taken for the budget of parameters": _budgets,
        "one learning rate for all arms, or one at the edge of what was tried": _rates,
        "scales that change with the rank (alpha / r)": _scales,
        "initialisation mixed with allocation": _inits,
        "one seed, or seeds that are not paired": _seeds,
        "no random, shuffled or inverted map to beat": _controls,
        "accuracy on a thousand items as the only score": _scores,
        "the allocator's own compute and memory not charged": _charges,
        "methods that move ranks judged by other parameters than those stored": _stored,
        "no correction for many comparisons": _multiplicity,
    }
    return tuple(
        FlawCheck(flaw=flaw, is_avoided=avoided, evidence=evidence)
        for flaw, judge in checks.items()
        for avoided, evidence in [judge(results, arms)]
    )


def _budgets(results: StudyResults, arms: Sequence[ArmComparison]) -> _Judgement:
    equal = [arm for arm in arms if "different budget" not in arm.deviations and arm.params]
    if not equal:
        return _NOTHING
    poorer = [arm.name for arm in equal if lacks_budget(results, arm)]
    if poorer:
        return False, f"{_listed(poorer)} spent less than was allowed, by more than one component."
    low = min(arm.params.low for arm in equal if arm.params)
    high = max(arm.params.high for arm in equal if arm.params)
    others = [arm.name for arm in arms if "different budget" in arm.deviations]
    spread = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    declared = f" Declared to have another: {_listed(others)}." if others else ""
    return True, f"{format_count(len(equal), 'arm')} stored {spread} parameters.{declared}"


def _rates(results: StudyResults, arms: Sequence[ArmComparison]) -> _Judgement:
    lists = {candidate_rates(results, arm.name) for arm in arms}
    if any(len(rates) < 2 for rates in lists):
        return False, "At least one arm had a single learning rate."
    if any(arm.learning_rate is None for arm in arms):
        return None, "Not all learning rates are chosen yet."
    at_edge = [arm.name for arm in arms if arm.learning_rate_edge]
    if at_edge:
        return False, f"Tuned per arm, but at an end of its list for {_listed(at_edge)}."
    if len(lists) > 1:
        return False, "Tuned per arm, but over lists that differ."
    return True, f"Each arm's own, of the same {len(next(iter(lists)))} rates, none at an end of the list."


def _scales(results: StudyResults, arms: Sequence[ArmComparison]) -> _Judgement:
    if not any(run.sites for run in results.runs):
        return _NOTHING
    uneven = [arm.name for arm in arms if has_uneven_scales(results, arm.name)]
    if uneven:
        return False, f"Scales differ between sites in {_listed(uneven)}."
    others = [arm.name for arm in arms if "different scaling" in arm.deviations]
    declared = f" Declared to have another: {_listed(others)}." if others else ""
    return True, f"Every site of an arm has the same scale.{declared}"


def _inits(_: StudyResults, arms: Sequence[ArmComparison]) -> _Judgement:
    mixed = [arm.name for arm in arms if "different initialisation" in arm.deviations]
    base = next((arm.strategy for arm in arms if arm.is_baseline), None)
    confounded = [arm.name for arm in arms if arm.name in mixed and arm.strategy != base and not _has_twin(arm, arms)]
    if confounded:
        return False, f"Another start and other ranks at once in {_listed(confounded)}."
    if mixed:
        return True, f"Arms with another start have a counterpart that shares it or their ranks: {_listed(mixed)}."
    return True, "One initialisation for all arms."


def _has_twin(arm: ArmComparison, arms: Sequence[ArmComparison]) -> bool:
    """Whether some arm has the same strategy and the baseline's start."""
    return any(other.strategy == arm.strategy and "different initialisation" not in other.deviations for other in arms)


def _seeds(results: StudyResults, arms: Sequence[ArmComparison]) -> _Judgement:
    declared = len(results.study["seeds"])
    compared = [arm.difference for arm in arms if arm.difference]
    if declared == 1:
        return False, "One seed."
    if not compared:
        return None, f"{declared} seeds declared; nothing can be paired yet."
    fewest = min(len(difference.seeds) for difference in compared)
    needed = smallest_decidable_n(len(arms) - 1, results.study["compare"]["level"])
    if fewest < needed:
        return False, f"As few as {fewest} paired seeds, and below {needed} no difference can be significant."
    return True, f"{fewest} seeds or more, paired: one data order and one draw of initial adapters a seed."


def _controls(_: StudyResults, arms: Sequence[ArmComparison]) -> _Judgement:
    controls = [arm.name for arm in arms if arm.is_control]
    uneven = [arm for arm in arms if not arm.is_baseline and arm.strategy != "uniform" and not arm.is_control]
    if not uneven:
        return True, "No uneven allocation is compared, so none is needed."
    return bool(controls), f"Controls: {_listed(controls)}." if controls else "No control among the arms."


def _scores(results: StudyResults, _: Sequence[ArmComparison]) -> _Judgement:
    run = next((run for run in results.runs if run.example_answer_tokens is not None), None)
    tokens = None if run is None or run.example_answer_tokens is None else run.example_answer_tokens
    counted = "" if tokens is None else f" of {int(tokens.sum()):,} answer tokens in {len(tokens):,} test examples"
    return True, f"Decided by held-out loss{counted}, in nats; accuracy is secondary."


def _charges(results: StudyResults, arms: Sequence[ArmComparison]) -> _Judgement:
    finished = [run for arm in arms for run in reported_runs(results, arm.name).values() if run.status == "finished"]
    if not finished:
        return _NOTHING
    silent = sorted({run.arm for run in finished if run.probe_peak_memory_bytes is None})
    if silent:
        return False, f"Not recorded for {_listed(silent)}."
    probed = {arm.name: arm.probe_wall_s for arm in arms if arm.probe_wall_s}
    if not probed:
        return True, "No arm measured anything before training."
    longest = max(probed, key=lambda name: probed[name])
    return True, (
        f"Probes are in the time and memory of {format_count(len(probed), 'arm')}; the longest, {longest}: "
        f"{format_seconds(probed[longest])} a run."
    )


def _stored(_: StudyResults, arms: Sequence[ArmComparison]) -> _Judgement:
    finished = sum(arm.audit.num_runs for arm in arms)
    audited = sum(arm.audit.num_audited for arm in arms)
    wrong = [arm.name for arm in arms if arm.audit.exceptions]
    if not finished:
        return _NOTHING
    if wrong:
        return False, f"What was stored differs from the plan in {_listed(wrong)}."
    if audited < finished:
        return False, f"{audited} of {finished} adapters were read back when they were stored."
    return True, f"All {finished} adapters were read back, site by site, when they were stored."


def _multiplicity(results: StudyResults, arms: Sequence[ArmComparison]) -> _Judgement:
    level = results.study["compare"]["level"]
    return True, f"Holm's adjustment over {format_count(len(arms) - 1, 'comparison')} at level {level:g}."


def _listed(names: Sequence[str]) -> str:
    """Names of arms often hold commas."""
    return "; ".join(names)


def flaws_line(comparison: StudyComparison) -> str:
    """For the first lines of a report."""
    met = [str(number) for number, check in enumerate(comparison.flaws, 1) if check.is_avoided is False]
    avoided = sum(check.is_avoided is True for check in comparison.flaws)
    text = f"Of the {len(comparison.flaws)} known flaws of such comparisons this study avoids {avoided}"
    text += f" and has {len(met)}: number {', '.join(met)}" if met else ""
    return f"{text} ([the list](#known-flaws-checked)).\n"


def flaws_section(comparison: StudyComparison) -> str:
    """The whole list with its evidence."""
    words = {True: "avoided", False: "**present**", None: "open"}
    rows = (
        (str(number), escape(check.flaw), words[check.is_avoided], escape(check.evidence))
        for number, check in enumerate(comparison.flaws, 1)
    )
    return "## Known flaws, checked\n\n" + table(("No.", "Flaw", "Here", "Evidence"), rows, "rlll")
