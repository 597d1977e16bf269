"""The section on answers, calibration and forgetting; empty for studies that measured none of them."""

from collections.abc import Callable
from dataclasses import replace

from rankwise.reporting.format import MINUS, MISSING, format_difference
from rankwise.reporting.markdown import bullets, escape, table
from rankwise.reporting.secondary import SECONDARY
from rankwise.reporting.values import Estimate, SecondaryScore, StudyComparison

TITLES = {
    "test_calibration_error": "Calibration error",
    "test_exact_match": "Exact match",
    "test_rouge_l": "ROUGE-L",
    "test_chrf": "chrF",
    "forgetting": "Forgetting",
}
NOTES = {
    "test_calibration_error": "Calibration error: ECE over the test answers' tokens, 15 bins; lower is better.",
    "test_exact_match": "Exact match: share of greedy answers to test examples that are the expected ones.",
    "test_rouge_l": "ROUGE-L: F1 of the longest common subsequence of words.",
    "test_chrf": "chrF: F2 of character n-grams.",
    "forgetting": "Forgetting: loss on general text after training less before it, nats per token; lower is better.",
}


def secondary_section(comparison: StudyComparison) -> str:
    """Means over seeds, and paired differences from the baseline."""
    names = [name for name in SECONDARY if any(name in arm.secondary for arm in comparison.arms)]
    if not names:
        return ""
    columns = [f"{TITLES[name]} [{comparison.level:.0%}]" for name in names]
    align = "l" + "r" * len(names)
    means = [(escape(arm.name), *(_mean(name, arm.secondary.get(name)) for name in names)) for arm in comparison.arms]
    text = f"### Answers, calibration and forgetting\n\n{table(('Arm', *columns), means, align)}\n"
    compared = [arm for arm in comparison.arms if any(score.difference for score in arm.secondary.values())]
    if compared:
        rows = [(escape(arm.name), *(_difference(name, arm.secondary.get(name)) for name in names)) for arm in compared]
        text += f"{table((f'Minus {escape(comparison.baseline)}', *columns), rows, align)}\n"
    notes = [NOTES[name] for name in names]
    notes.append("Intervals are over seeds, differences paired by seed; none is adjusted: no verdict rests on them.")
    return text + bullets(notes)


def _mean(name: str, score: SecondaryScore | None) -> str:
    if score is None:
        return MISSING
    return format_difference(score.mean) if name == "forgetting" else percent_mean(score.mean)


def _difference(name: str, score: SecondaryScore | None) -> str:
    """Nats of forgetting, percentage points of everything else."""
    if score is None or score.difference is None:
        return MISSING
    return format_difference(score.difference) if name == "forgetting" else percent_difference(score.difference)


def percent_mean(share: Estimate) -> str:
    """A share as a percentage, with its interval."""
    return _percent(_as_share(share), _plain)


def percent_difference(difference: Estimate) -> str:
    """A difference of shares in percentage points, with its interval."""
    return _percent(difference, _points)


def _as_share(estimate: Estimate) -> Estimate:
    """Student's t of two or three seeds knows nothing of 0 and 1, where a share ends."""
    if estimate.low is None or estimate.high is None:
        return estimate
    return replace(estimate, low=max(0.0, estimate.low), high=min(1.0, estimate.high))


def _percent(estimate: Estimate, text: Callable[[float], str]) -> str:
    if estimate.low is None or estimate.high is None:
        return text(estimate.value)
    return f"{text(estimate.value)} [{text(estimate.low)}, {text(estimate.high)}]"


def _plain(frac: float) -> str:
    return f"{100 * frac:.1f}%"


def _points(frac: float) -> str:
    text = f"{abs(100 * frac):.1f}"
    return text if float(text) == 0 else (MINUS if frac < 0 else "+") + text
