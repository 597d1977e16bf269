"""The answer in plain words: which arms are better, worse, the same or undecided, with numbers and n."""

from collections.abc import Sequence
from typing import get_args

from rankwise.reporting.format import MISSING, format_difference, format_equals, format_loss, format_names, format_p
from rankwise.reporting.markdown import bullets, code, escape
from rankwise.reporting.values import ArmComparison, StudyComparison
from rankwise.statistics.verdict import Word

_PHRASES: dict[Word, str] = {
    "better": "better than",
    "worse": "worse than",
    "practically the same": "practically the same as",
    "undecided": "not told apart from",
}


def completeness(comparison: StudyComparison) -> str:
    """What is missing, in a sentence; empty for a complete study."""
    scores = [score for arm in comparison.arms for score in arm.seeds]
    missing = sum(len(arm.missing_seeds) for arm in comparison.arms)
    if not missing:
        return ""
    arms = ", ".join(f"{escape(a.name)} ({len(a.missing_seeds)})" for a in comparison.arms if a.missing_seeds)
    untuned = [escape(arm.name) for arm in comparison.arms if arm.learning_rate is None]
    tail = f" No learning rate has been chosen yet for {', '.join(untuned)}." if untuned else ""
    return f"**Unfinished.** {missing} of {len(scores)} reported runs are missing: {arms}.{tail}"


def verdict_section(comparison: StudyComparison) -> str:
    """The answer in a paragraph, then the numbers behind it, one line an arm."""
    compared = [arm for arm in comparison.arms if arm.difference]
    if not compared:
        return _nothing_to_say(comparison)
    same = [arm for arm in compared if not arm.deviations]
    others = [arm for arm in compared if arm.deviations]
    text = ""
    if same:
        text += f"At {_budget(comparison)}, {_summary(same, comparison)}.\n"
    if others:
        text += f"Not an equal comparison: {_summary(others, comparison)}.\n"
    absent = [_bold_name(arm) for arm in comparison.arms if not arm.is_baseline and not arm.difference]
    if absent:
        text += f"Not compared yet: {format_names(absent)}.\n"
    baseline = escape(comparison.baseline)
    return f"{text}{_resolution(comparison)}\n{bullets(_evidence(arm, baseline) for arm in [*same, *others])}"


def _nothing_to_say(comparison: StudyComparison) -> str:
    done = sum(len(arm.finished_seeds) for arm in comparison.arms)
    if not done:
        return "Nothing can be said yet: no reported run has finished.\n"
    if len(comparison.arms) == 1:
        return "The study has one arm, so there is nothing to compare; its scores are below.\n"
    return f"Nothing can be compared yet: no seed has finished in both {escape(comparison.baseline)} and another arm.\n"


def _budget(comparison: StudyComparison) -> str:
    budget = comparison.arm(comparison.baseline).budget_params
    return f"the same budget of {budget:,} parameters" if budget else "the same budget"


def _summary(arms: Sequence[ArmComparison], comparison: StudyComparison) -> str:
    """`**a** is better than uniform, **b** and **c** are not told apart from uniform`, the clearest outcome first."""
    clauses = []
    for outcome in get_args(Word):
        names = [_bold_name(arm) for arm in arms if arm.difference and arm.difference.outcome == outcome]
        if names:
            verb = "is" if len(names) == 1 else "are"
            clauses.append(f"{format_names(names)} {verb} {_PHRASES[outcome]} {escape(comparison.baseline)}")
    return "; ".join(clauses)


def _bold_name(arm: ArmComparison) -> str:
    notes = [*(["control"] if arm.is_control else []), *arm.deviations]
    return f"**{escape(arm.name)}**" + (f" ({', '.join(notes)})" if notes else "")


def _evidence(arm: ArmComparison, baseline: str) -> str:
    found = arm.difference
    assert found is not None
    text = f"{_bold_name(arm)}, {found.outcome}: {format_difference(found.estimate)} nats per answer token against "
    text += f"{baseline}, n = {len(found.seeds)}"
    if found.p_holm is not None:
        text += f", p {format_equals(format_p(found.p_holm))} after Holm's adjustment"
    if found.outcome == "practically the same" and found.p_equivalence is not None:
        text += f"; smaller than the equivalence margin with p {format_equals(format_p(found.p_equivalence))}"
    if found.seeds_to_decide is not None:
        text += f"; about {found.seeds_to_decide:,} seeds would decide"
    return text + "."


def _resolution(comparison: StudyComparison) -> str:
    """What this study could have seen at all."""
    smallest = comparison.minimum_detectable_nats
    if smallest is None:
        return "With these seeds no difference, however large, could have been shown.\n"
    return (
        f"These seeds show a difference of {format_loss(smallest)} nats with 80% power (median over the comparisons, "
        "at the strictest step of Holm's adjustment).\n"
    )


def failures_section(comparison: StudyComparison) -> str:
    """Runs that are in no mean, and why."""
    lines = [
        f"{escape(arm.name)}, seed {score.seed}, run {code(score.run_id or MISSING)}: {score.status}"
        + (f" ({escape(score.error)})" if score.error else "")
        for arm in comparison.arms
        for score in arm.seeds
        if score.status != "finished"
    ]
    return bullets(lines) if lines else "None: every reported run finished and is in the means.\n"
