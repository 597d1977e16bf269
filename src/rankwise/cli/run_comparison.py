"""Two runs side by side, and the arms of a study against their baseline, for the terminal.

E = examples of the test split.
"""

import math

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from scipy import stats

from rankwise.cli.console import cell
from rankwise.cli.run_tables import facts_table, format_count, format_score
from rankwise.ledger.flat import leaves
from rankwise.ledger.results import RunRow, StudyResults
from rankwise.reporting.comparison import compare_arms
from rankwise.reporting.format import (
    MISSING,
    format_bytes,
    format_difference,
    format_estimate,
    format_outcome,
    format_p,
    format_rate,
    format_seconds,
    format_signed,
    format_span,
)
from rankwise.reporting.values import ArmComparison

LEVEL = 0.95
"""Of the interval over examples."""
HIGHLIGHT = "bold yellow"


def comparison_page(first: RunRow, second: RunRow) -> Group:
    """What was asked of each, what each got per site, what each earned, and the paired difference."""
    parts: list[RenderableType] = [cell("Specification", "bold"), _spec_table(first, second)]
    if first.sites and second.sites:
        parts += ["", cell("Ranks", "bold"), _ranks_table(first, second)]
    parts += ["", cell("Results", "bold"), _results_table(first, second)]
    return Group(*parts, "", cell("Test examples, paired", "bold"), _paired_facts(first, second))


def _side_by_side(first: RunRow, second: RunRow, third: str | None = None) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("", style="dim", overflow="fold")
    for name in filter(None, (first.id, second.id, third)):
        table.add_column(name, justify="right", overflow="fold")
    return table


def _spec_table(first: RunRow, second: RunRow) -> Table:
    """All settings that differ, and how many are the same."""
    mine, theirs = dict(leaves(first.spec)), dict(leaves(second.spec))
    names = list(dict.fromkeys([*mine, *theirs]))
    table = _side_by_side(first, second)
    table.add_row(cell("arm"), cell(first.arm), cell(second.arm))
    for name in names:
        if mine.get(name) != theirs.get(name):
            table.add_row(cell(name), cell(mine.get(name), HIGHLIGHT), cell(theirs.get(name), HIGHLIGHT))
    num_same = sum(mine.get(name) == theirs.get(name) for name in names)
    table.add_row(cell(f"{num_same} settings are the same"), "", "")
    return table


def _ranks_table(first: RunRow, second: RunRow) -> Table | Text:
    """The sites whose rank or scale differs; a site that one of them lacks has none there."""
    mine, theirs = (
        {site.site: (rank, site.scale) for site, rank in zip(run.sites, run.spent_ranks, strict=True)}
        for run in (first, second)
    )
    names = list(dict.fromkeys([*mine, *theirs]))
    got = {name: [mine.get(name), theirs.get(name)] for name in names}
    differing = {name: pair for name, pair in got.items() if pair[0] != pair[1]}
    if not differing:
        return cell(f"The same rank and scale at all {len(names)} sites.")
    table = _side_by_side(first, second)
    for name, pair in differing.items():
        table.add_row(cell(name), *(cell(found and f"{found[0]} (scale {found[1]:g})", HIGHLIGHT) for found in pair))
    table.add_row(cell(f"{len(names) - len(differing)} sites are the same"), "", "")
    return table


def _results_table(first: RunRow, second: RunRow) -> Table:
    table = _side_by_side(first, second, "difference")
    table.add_row(cell("status"), cell(first.status), cell(second.status))
    table.add_row(cell("parameters"), *(cell(format_count(run.spent_params)) for run in (first, second)))
    for name in dict.fromkeys([*first.scores, *second.scores]):
        values = first.scores.get(name), second.scores.get(name)
        losses = name.endswith("loss") and None not in values
        difference = format_signed(second.scores[name] - first.scores[name]) if losses else ""
        table.add_row(cell(name.replace("_", " ")), *(cell(format_score(name, v)) for v in values), cell(difference))
    table.add_row(cell("time"), *(cell(format_seconds(run.wall_s)) for run in (first, second)))
    table.add_row(cell("memory"), *(cell(format_bytes(run.peak_memory_bytes)) for run in (first, second)))
    return table


def _paired_facts(first: RunRow, second: RunRow) -> RenderableType:
    loss_E, other_loss_E, tokens_E = first.example_loss_nats, second.example_loss_nats, first.example_answer_tokens
    if loss_E is None or other_loss_E is None or tokens_E is None:
        return cell("No per-example test losses: both runs must have finished and been scored on the test split.")
    same_data = first.spec["data_fingerprint"] == second.spec["data_fingerprint"]
    if not same_data or not _same_counts(tokens_E, second.example_answer_tokens):
        return cell("The runs were scored on different examples, so their losses cannot be paired.")
    difference_E = other_loss_E - loss_E
    mean, half = paired_interval(difference_E, tokens_E)
    return facts_table(
        {
            f"{second.id} minus {first.id}": f"{format_signed(mean)} nats per answer token",
            f"{LEVEL:.0%} interval": f"{format_signed(mean - half)} to {format_signed(mean + half)}",
            "method": f"ratio estimate over {len(difference_E)} examples, Student's t",
            "lower loss": f"{np.sum(difference_E < 0)} examples {second.id}, {np.sum(difference_E > 0)} {first.id}",
            "note": "one seed each: this interval says nothing about other seeds",
        }
    )


def _same_counts(tokens_E: np.ndarray, other_tokens_E: np.ndarray | None) -> bool:
    return other_tokens_E is not None and np.array_equal(tokens_E, other_tokens_E)


def paired_interval(difference_E: np.ndarray, tokens_E: np.ndarray) -> tuple[float, float]:
    """Difference in loss per answer token, and the half width of its interval over examples.

    The sum of the examples' differences over the sum of their tokens is a ratio estimate: its variance comes from the
    residuals d - ratio x tokens (Cochran, "Sampling Techniques", section 2.11).
    """
    num_examples, num_tokens = len(difference_E), float(tokens_E.sum())
    ratio = float(difference_E.sum()) / num_tokens
    if num_examples < 2:
        return ratio, math.nan
    residual_E = difference_E - ratio * tokens_E
    error = math.sqrt(num_examples / (num_examples - 1) * float(residual_E @ residual_E)) / num_tokens
    return ratio, float(stats.t.isf((1 - LEVEL) / 2, num_examples - 1)) * error


def arms_page(results: StudyResults) -> Group:
    """The report's comparison in one table."""
    comparison = compare_arms(results)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("arm", overflow="fold")
    for name in ("n", "rate", "params", "test loss", f"minus {comparison.baseline}", "p (Holm)"):
        table.add_column(Text(name), justify="right")
    table.add_column("verdict")
    for arm in comparison.arms:
        table.add_row(*map(cell, _arm_cells(arm)))
    note = (
        f"Means over n reported seeds in nats per answer token, with {comparison.level:.0%} intervals over seeds; "
        f"p: sign-flip test, adjusted over {len(comparison.family)} comparisons."
    )
    return Group(table, "", cell(note, "dim"))


def _arm_cells(arm: ArmComparison) -> list[str]:
    difference = arm.difference
    return [
        arm.name,
        f"{len(arm.finished_seeds)} of {len(arm.seeds)}",
        format_rate(arm.learning_rate),
        format_span(arm.params),
        format_estimate(arm.test_loss),
        format_difference(difference.estimate) if difference else MISSING,
        format_p(difference.p_holm) if difference else MISSING,
        format_outcome(arm),
    ]
