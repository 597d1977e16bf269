"""An evaluation as people read it in the terminal. Texts from files go through `cell`, which no markup can steer."""

import math
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table

from rankwise.cli.console import cell
from rankwise.cli.evaluation_documents import interval_bounds
from rankwise.cli.run_tables import facts_table
from rankwise.evaluation.metrics import LEVEL, Estimate, compare, summarise
from rankwise.execution.evaluate import Evaluation
from rankwise.reporting.format import MISSING, format_percent

LABELS = {
    "loss_nats": ("loss", "nats per answer token"),
    "perplexity": ("perplexity", ""),
    "bits_per_byte": ("bits per byte", ""),
    "token_accuracy": ("token accuracy", ""),
    "calibration_error": ("calibration error", "(ECE)"),
    "exact_match": ("exact match", ""),
    "rouge_l": ("ROUGE-L", ""),
    "chrf": ("chrF", ""),
    "expected_answer_tokens": ("answers expected", "tokens"),
    "written_answer_tokens": ("answers written", "tokens"),
}
"""Metric -> what tables call it, and its unit."""
COLUMNS = (
    "loss_nats",
    "perplexity",
    "bits_per_byte",
    "token_accuracy",
    "calibration_error",
    "exact_match",
    "rouge_l",
    "chrf",
)
"""Of the table of several models."""
COMPARED = ("loss_nats", "exact_match")
"""Of the table of differences; the JSON document has all."""
SHORT = {
    "perplexity": "ppl",
    "bits_per_byte": "bits/B",
    "token_accuracy": "tokens",
    "calibration_error": "ECE",
    "exact_match": "exact",
    "rouge_l": "R-L",
}
"""Heads of columns where the label is too wide for 80 characters."""
PERCENT = ("token_accuracy", "exact_match", "calibration_error", "rouge_l", "chrf")


def format_metric(name: str, value: float | None) -> str:
    """In the unit of the metric, without naming it."""
    if value is None or not math.isfinite(value):
        return MISSING
    if name in PERCENT:
        return format_percent(value)
    return (
        f"{value:.{4 if name == 'loss_nats' else 3 if name == 'bits_per_byte' else 2 if name == 'perplexity' else 1}f}"
    )


def scores_page(evaluation: Evaluation, split: str) -> RenderableType:
    """All scores of one model with their intervals."""
    found = summarise(evaluation.scores)
    expected = evaluation.scores.expected
    num_tokens = int(expected.answer_tokens_E.sum())
    facts = {f"{split} examples": f"{len(expected.loss_nats_E):,}, with {num_tokens:,} answer tokens"}
    for name, (label, unit) in LABELS.items():
        if found[name].value is not None or name in ("loss_nats", "perplexity"):
            facts[label] = " ".join(filter(None, [_with_interval(name, found[name]), unit]))
    if evaluation.scores.written is None:
        facts["exact match"] = "no answers written"
    if evaluation.forgetting is not None:
        facts["forgetting"] = _forgetting(evaluation)
    note = (
        f"[ ]: {LEVEL:.0%} intervals over examples; they say nothing about other seeds. Formulas: docs/evaluation.md."
    )
    return Group(facts_table(facts), "", cell(note, "dim"))


def _with_interval(name: str, estimate: Estimate) -> str:
    value, bounds = format_metric(name, estimate.value), interval_bounds(estimate.interval)
    return value if bounds is None else f"{value} [{', '.join(format_metric(name, bound) for bound in bounds)}]"


def _forgetting(evaluation: Evaluation) -> str:
    lost = evaluation.forgetting
    assert lost is not None
    before, after = (format_metric("loss_nats", value) for value in (lost.before_nats, lost.after_nats))
    return (
        f"{_signed('loss_nats', lost.difference_nats)} nats per token on {lost.num_passages} general passages "
        f"({before} before, {after} after)"
    )


def _signed(name: str, estimate: Estimate) -> str:
    """A difference with its interval: `-0.0123 [-0.0200, -0.0046]`."""
    if estimate.value is None:
        return MISSING
    bounds = interval_bounds(estimate.interval)
    texts = [_sign(value) + format_metric(name, abs(value)) for value in (estimate.value, *(bounds or ()))]
    return texts[0] if bounds is None else f"{texts[0]} [{texts[1]}, {texts[2]}]"


def _sign(value: float) -> str:
    return "−" if value < 0 else "+"


def side_by_side_page(evaluations: Sequence[Evaluation], split: str) -> RenderableType:
    """A row per model, then what each differs from the first by, on the same examples."""
    found = [summarise(evaluation.scores) for evaluation in evaluations]
    shown = [name for name in COLUMNS if any(scores[name].value is not None for scores in found)]
    table = _table("model", *(SHORT.get(name, LABELS[name][0]) for name in shown))
    lost = [evaluation.forgetting for evaluation in evaluations]
    if any(lost):
        table.add_column("forget", justify="right", no_wrap=True)
    for evaluation, scores, forgotten in zip(evaluations, found, lost, strict=True):
        row = [format_metric(name, scores[name].value) for name in shown]
        row += [_sign_only(forgotten.difference_nats) if forgotten else MISSING] * any(lost)
        table.add_row(*map(cell, [evaluation.model.name, *row]))
    first, *others = evaluations
    compared = [name for name in COMPARED if name in shown]
    differences = _table(f"minus {first.model.name}", *(LABELS[name][0] for name in compared))
    for other in others:
        of_metric = compare(other.scores, first.scores)
        differences.add_row(cell(other.model.name), *(cell(_signed(name, of_metric[name])) for name in compared))
    num = len(first.scores.expected.loss_nats_E)
    note = (
        f"{num:,} {split} examples, the same for all; [ ]: {LEVEL:.0%} intervals of the paired difference over them. "
        "One training run each: they say nothing about other seeds."
    )
    return Group(table, "", differences, "", cell(note, "dim"))


def _sign_only(estimate: Estimate) -> str:
    return (
        MISSING if estimate.value is None else _sign(estimate.value) + format_metric("loss_nats", abs(estimate.value))
    )


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column(cell(first), overflow="fold")
    for name in others:
        table.add_column(cell(name), justify="right", no_wrap=True)
    return table
