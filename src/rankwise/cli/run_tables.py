"""Runs as people read them in the terminal. Every text from a file goes through `cell`, which no markup can steer."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from rich.console import Group, RenderableType
from rich.table import Table

from rankwise.cli.console import cell
from rankwise.cli.site_table import sites_table
from rankwise.ledger.results import CurvePoint, RunRow
from rankwise.records import WrittenAnswer
from rankwise.reporting.format import (
    MISSING,
    format_bytes,
    format_loss,
    format_percent,
    format_rate,
    format_seconds,
    format_signed,
    format_size,
)
from rankwise.reporting.stability import grad_spikes, loss_spikes, step_norms

SHARES = ("accuracy", "exact_match", "rouge_l", "chrf", "calibration_error")
"""Endings of the names of scores that are shown in percent."""
STATUS_STYLES = {"finished": "green", "running": "cyan", "diverged": "yellow", "failed": "red", "pending": "dim"}
BARS = "▁▂▃▄▅▆▇█"
SHOWN_CHARS = 400
"""Of each text in the table of answers."""
CURVE_CHARS = 60
"""Width of the drawn training curve."""


def runs_table(rows: Sequence[tuple[str, RunRow]]) -> Table:
    """One line per study and run."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("id", "study", "arm", "purpose"):
        table.add_column(name, no_wrap=name == "id")
    for name in ("rate", "seed", "status", "params", "validation", "test", "time"):
        table.add_column(name, justify="left" if name == "status" else "right", no_wrap=True)
    for study, run in rows:
        named = [
            cell(value) for value in (run.id, study, run.arm, run.purpose, format_rate(run.learning_rate), run.seed)
        ]
        measured = [
            format_count(run.spent_params),
            format_loss(run.scores.get("validation_loss")),
            format_loss(run.scores.get("test_loss")),
            format_seconds(run.wall_s),
        ]
        table.add_row(*named, cell(run.status, STATUS_STYLES[run.status]), *map(cell, measured))
    return table


def run_page(run: RunRow, memberships: Sequence[tuple[str, str, str]], environment: Mapping[str, str]) -> Group:
    """All about one run: what it is, what it earned, what each site got."""
    parts: list[RenderableType] = [facts_table(run_facts(run, memberships))]
    if run.sites:
        parts += ["", cell("Sites: what was planned, and what was read back", "bold"), sites_table(run)]
    if run.training_curve:
        parts += ["", cell("Curve: training loss in nats per answer token", "bold"), _curve(run)]
    if environment:
        parts += ["", cell("Environment of the session that trained it", "bold"), facts_table(environment)]
    return Group(*parts)


def answers_table(answers: Iterable[WrittenAnswer]) -> Table:
    """One row per question. Texts come from a data set and a model: none may carry markup or steer the terminal."""
    table = Table("question", "expected", "got", "", show_lines=True)
    for answer in answers:
        match = cell("yes", "green") if answer.exact_match else cell("no", "red")
        texts = (answer.question, answer.expected, answer.written)
        table.add_row(*(cell(_shorten(text)) for text in texts), match)
    return table


def _shorten(text: str) -> str:
    text = text.strip()
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"


def facts_table(facts: Mapping[str, object]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(cell(name), cell(value))
    return table


def run_facts(run: RunRow, memberships: Sequence[tuple[str, str, str]]) -> dict[str, object]:
    places = [f"{study} / {arm} ({purpose})" for study, arm, purpose in memberships]
    facts: dict[str, object] = {
        "run": run.id,
        "study / arm": "; ".join(places) or "no study plans it any more",
        "strategy": run.strategy,
        "learning rate": format_rate(run.learning_rate),
        "seed": run.seed,
        "status": run.status + (f": {run.error}" if run.error else ""),
        "parameters": _params(run),
        "audit": _audit(run),
        "base": run.spec["base_fingerprint"],
        "data": run.spec["data_fingerprint"],
        "steps": run.steps,
        "time": format_seconds(run.wall_s)
        + (f" (predicted {format_seconds(run.predicted_wall_s)})" * (run.predicted_wall_s is not None))
        + (f", {format_seconds(run.probe_wall_s)} of it probing" * bool(run.probe_wall_s))
        + (f" with {format_bytes(run.probe_peak_memory_bytes)}" * bool(run.probe_peak_memory_bytes)),
        "stability": _stability(run) if run.training_curve else None,
        "memory": f"{format_bytes(run.peak_memory_bytes)} (predicted {format_bytes(run.predicted_memory_bytes)})",
        "pack": None if run.pack_slots is None else f"{run.pack_slots} slots",
        "tokens": f"{format_count(run.tokens)} and {format_count(run.padding_tokens)} of padding",
    }
    return facts | {name.replace("_", " "): format_score(name, value) for name, value in run.scores.items()}


def _params(run: RunRow) -> str:
    return (
        f"{format_count(run.spent_params)} of {format_count(run.budget_params)} allowed, "
        f"{format_count(run.unspent_params)} left unspent"
    )


def _audit(run: RunRow) -> str:
    """Whether what is stored was read back, and how it differs from what counts against the budget."""
    if not run.outcomes:
        return "not read back at its end (unfinished, failed, or of an older version)"
    text = f"what is stored was read back: {format_count(run.stored_params)} parameters"
    if run.held_params != run.spent_params:
        text += f", at most {format_count(run.held_params)} active at once"
    return text


def _stability(run: RunRow) -> str:
    """Steps that jumped out, and the largest one in the weights."""
    found = [f"{len(steps)} {what}{_at(steps)}" for what, steps in _spikes(run).items()]
    if norms := step_norms(run):
        step = max(norms, key=norms.__getitem__)
        found.append(f"largest step {format_size(norms[step])} at step {step}")
    return "; ".join(found)


def _spikes(run: RunRow) -> dict[str, tuple[int, ...]]:
    return {"loss spikes": loss_spikes(run), "gradient spikes": grad_spikes(run)}


def _at(steps: Sequence[int]) -> str:
    return f" (steps {', '.join(map(str, steps))})" if steps else ""


def _curve(run: RunRow) -> Group:
    points = [point for point in run.training_curve if math.isfinite(point.value)]
    lines = []
    if points:
        lowest = min(points, key=lambda point: point.value)
        lines += [
            sparkline([point.value for point in points]),
            f"{points[0].value:.4f} at step {points[0].step}, lowest {lowest.value:.4f} at step {lowest.step}, "
            f"{points[-1].value:.4f} at step {points[-1].step}",
        ]
    if len(points) < len(run.training_curve):
        lines.append(f"not a number in {len(run.training_curve) - len(points)} steps")
    if run.validation_curve:
        lines.append("validation: " + ", ".join(map(_curve_point, run.validation_curve)))
    return Group(*map(cell, lines))


def _curve_point(point: CurvePoint) -> str:
    return f"{point.value:.4f} at step {point.step}"


def sparkline(values: Sequence[float]) -> str:
    """Means of up to 60 equal stretches as bars, from the lowest mean to the highest."""
    width = min(CURVE_CHARS, len(values))
    edges = [index * len(values) // width for index in range(width + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, span = min(means), (max(means) - min(means)) or 1.0
    return "".join(BARS[round((mean - low) / span * (len(BARS) - 1))] for mean in means)


def format_count(count: int | None) -> str:
    return MISSING if count is None else f"{count:,}"


def format_score(name: str, value: float | None) -> str:
    """Losses with four decimals, perplexities with two, accuracies in percent."""
    if value is None:
        return MISSING
    if name.endswith("perplexity"):
        return f"{value:.2f}"
    if name == "forgetting":
        return format_signed(value)
    return format_percent(value) if name.endswith(SHARES) else format_loss(value)
