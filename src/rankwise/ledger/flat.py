"""Runs as flat values, as other tools take them: one row of plain cells, series of metrics by step, settings by name.

One place says what the columns are called, so that a CSV file, a data frame and a tracker agree.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Literal

from rankwise.ledger.results import CurvePoint, RunRow, StudyResults

ColumnKind = Literal["text", "int", "float", "time"]
Series = dict[str, list[CurvePoint]]
"""Name -> points in the order of their steps."""

_BEFORE_SCORES: Mapping[str, ColumnKind] = {
    "id": "text",
    "study": "text",
    "arm": "text",
    "purpose": "text",
    "strategy": "text",
    "learning_rate": "float",
    "seed": "int",
    "status": "text",
    "error": "text",
    "params": "int",
    "budget_params": "int",
    "stored_params": "int",
    "held_params": "int",
}
_SCORES: Mapping[str, ColumnKind] = dict.fromkeys(
    (
        "initial_validation_loss",
        "validation_loss",
        "validation_token_accuracy",
        "test_loss",
        "test_perplexity",
        "test_token_accuracy",
        "test_calibration_error",
    ),
    "float",
)
_AFTER_SCORES: Mapping[str, ColumnKind] = {
    "steps": "int",
    "tokens": "int",
    "padding_tokens": "int",
    "wall_s": "float",
    "probe_wall_s": "float",
    "predicted_wall_s": "float",
    "peak_memory_bytes": "int",
    "probe_peak_memory_bytes": "int",
    "predicted_memory_bytes": "int",
    "micro_tokens": "int",
    "pack_id": "text",
    "pack_slots": "int",
    "claimed_at": "time",
    "finished_at": "time",
}
RUN_COLUMNS: Mapping[str, ColumnKind] = MappingProxyType({**_BEFORE_SCORES, **_SCORES, **_AFTER_SCORES})
"""The columns that every table of runs has, in their order. Scores of another name (exact match, forgetting) stand
between `test_calibration_error` and `steps`."""


def run_columns(runs: list[RunRow]) -> dict[str, ColumnKind]:
    """`RUN_COLUMNS` and the other scores that some of these runs have, by name."""
    others = sorted({name for run in runs for name in run.scores} - set(_SCORES))
    return {**_BEFORE_SCORES, **_SCORES, **dict.fromkeys(others, "float"), **_AFTER_SCORES}


def run_cells(study: str, run: RunRow, columns: Mapping[str, ColumnKind]) -> dict[str, Any]:
    """The run's value for each column; None for what was not measured. `params` counts against the budget."""
    special = {
        "study": study,
        "params": run.spent_params,
        "claimed_at": _utc(run.claimed_at),
        "finished_at": _utc(run.finished_at),
    }
    return {name: special[name] if name in special else _own_value(run, name) for name in columns}


def _own_value(run: RunRow, name: str) -> Any:
    return getattr(run, name) if name in RUN_COLUMNS and name not in _SCORES else run.scores.get(name)


def _utc(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def metric_series(run: RunRow) -> Series:
    """Every metric that the run has by step: losses, norms, learning rate, what each group of sites did, moving ranks.

    `training_loss`, `grad_norm`, `learning_rate` and `validation_loss`; `grad_norm/GROUP`, `update_norm/GROUP` and
    `weight_norm/GROUP` of each group of sites (`attention.early`, ...); `rank/SITE` where a strategy moves ranks, from
    step 0. A value that is not finite is there as such.
    """
    series: Series = {
        "training_loss": list(run.training_curve),
        "grad_norm": list(run.grad_norm_curve),
        "learning_rate": list(run.learning_rate_curve),
        "validation_loss": list(run.validation_curve),
    }
    for trace in run.traces:
        for kind in ("grad_norm", "update_norm", "weight_norm"):
            for group, value in zip(trace.groups, getattr(trace, f"{kind}s"), strict=True):
                series.setdefault(f"{kind}/{group}", []).append(CurvePoint(step=trace.step, value=value))
    if run.revisions:
        began = [(0, tuple(site.realised_rank for site in run.sites))]
        for step, ranks in began + [(revision.step, revision.ranks) for revision in run.revisions]:
            for site, rank in zip(run.sites, ranks, strict=True):
                series.setdefault(f"rank/{site.site}", []).append(CurvePoint(step=step, value=float(rank)))
    return {name: points for name, points in series.items() if points}


def run_settings(results: StudyResults, run: RunRow) -> dict[str, Any]:
    """Every setting of the run by its dotted name (`arm.train.batch_size`), with the names of its model and data.

    The identity of a run leaves those names out; the study that plans the run knows them.
    """
    arms = {arm["name"]: arm for arm in results.study["arms"]}
    return dict(leaves({**run.spec, "arm": arms.get(run.arm, run.spec["arm"])}))


def leaves(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`{"arm": {"dropout": 0.0}}` as `("arm.dropout", 0.0)`."""
    for name, value in document.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
