"""The section on what lm-evaluation-harness said of adapters and bases; empty for studies without benchmarks."""

from collections.abc import Callable

from rankwise.reporting.format import MISSING, format_difference, format_estimate, format_percent
from rankwise.reporting.markdown import bullets, escape, table
from rankwise.reporting.secondary import BENCHMARK
from rankwise.reporting.secondary_section import percent_difference, percent_mean
from rankwise.reporting.values import ArmComparison, SecondaryScore, StudyComparison

NOTES = (
    "By lm-evaluation-harness on the stored adapters. Means and intervals are over seeds, differences paired by seed; "
    "none is adjusted: no verdict rests on them.",
    "A base alone is one measurement, which has no interval over seeds.",
)


def benchmarks_section(comparison: StudyComparison) -> str:
    """Each number of the bases alone, its means over seeds, and paired differences from the baseline."""
    names = list(dict.fromkeys(name for arm in comparison.arms for name in arm.secondary if name.startswith(BENCHMARK)))
    if not names:
        return ""
    shares = [_is_share(comparison, name) for name in names]
    columns = [f"{escape(_title(name))} [{comparison.level:.0%}]" for name in names]
    align = "l" + "r" * len(names)

    def row(arm: ArmComparison, cell: Callable[[SecondaryScore | None, bool], str]) -> tuple[str, ...]:
        cells = (cell(arm.secondary.get(name), is_share) for name, is_share in zip(names, shares, strict=True))
        return escape(arm.name), *cells

    bases = [
        (
            _base_title(base.model, base.form),
            *(_of_base(base.scores.get(n), s) for n, s in zip(names, shares, strict=True)),
        )
        for base in comparison.base_scores
    ]
    means = [row(arm, _mean) for arm in comparison.arms]
    text = f"### Benchmarks\n\n{table(('Arm', *columns), [*bases, *means], align)}\n"
    compared = [
        arm for arm in comparison.arms if any(n in arm.secondary and arm.secondary[n].difference for n in names)
    ]
    if compared:
        rows = [row(arm, _difference) for arm in compared]
        text += f"{table((f'Minus {escape(comparison.baseline)}', *columns), rows, align)}\n"
    return text + bullets(NOTES)


def _title(name: str) -> str:
    """`benchmark/gsm8k/exact_match/strict-match` as `gsm8k, exact match, strict-match`."""
    benchmark, *rest = name.removeprefix(BENCHMARK).split("/")
    return ", ".join([benchmark, *(part.replace("_", " ") for part in rest)])


def _base_title(model: str, form: str) -> str:
    stored = "" if form == "none" else f" in {form}"
    return f"*{escape(model)}{stored} alone*"


def _is_share(comparison: StudyComparison, name: str) -> bool:
    """Whether a metric counts hits: most of the harness's do, and those that do not (a perplexity) leave 0 to 1."""
    of_bases = [base.scores[name] for base in comparison.base_scores if name in base.scores]
    of_arms = [arm.secondary[name].mean.value for arm in comparison.arms if name in arm.secondary]
    return all(0 <= value <= 1 for value in [*of_bases, *of_arms])


def _of_base(value: float | None, is_share: bool) -> str:
    if value is None:
        return MISSING
    return format_percent(value) if is_share else f"{value:.4f}"


def _mean(score: SecondaryScore | None, is_share: bool) -> str:
    if score is None:
        return MISSING
    return percent_mean(score.mean) if is_share else format_estimate(score.mean)


def _difference(score: SecondaryScore | None, is_share: bool) -> str:
    if score is None or score.difference is None:
        return MISSING
    return percent_difference(score.difference) if is_share else format_difference(score.difference)
