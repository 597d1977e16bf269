"""What the tables beside `runs` hold about runs, each table read once for all of them."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeVar

import numpy as np
from sqlalchemy import Connection, RowMapping, Select, Table, func, select

from rankwise.ledger.results import CurvePoint
from rankwise.ledger.schema import (
    ALLOCATIONS,
    ANSWERS,
    BENCHMARKS,
    EVALUATIONS,
    EXAMPLE_LOSSES,
    MEASUREMENTS,
    OUTCOMES,
    REVISIONS,
    TRACES,
)
from rankwise.ledger.writing import decode_array
from rankwise.records import Benchmarked, BenchmarkScore, RanksRevised, SiteAllocation, SiteOutcome, StepTrace

Value = TypeVar("Value")
RunIds = Select[tuple[str]]
"""A query for the runs that are wanted."""

ANSWER_SCORES = ("exact_match", "rouge_l", "chrf")
"""Columns of `answers` whose means are scores."""


@dataclass
class RunParts:
    """What other tables hold about one run."""

    sites: list[SiteAllocation] = field(default_factory=list)
    outcomes: list[SiteOutcome] = field(default_factory=list)
    revisions: list[RanksRevised] = field(default_factory=list)
    traces: list[StepTrace] = field(default_factory=list)
    training_curve: list[CurvePoint] = field(default_factory=list)
    grad_norm_curve: list[CurvePoint] = field(default_factory=list)
    learning_rate_curve: list[CurvePoint] = field(default_factory=list)
    evaluations: list[RowMapping] = field(default_factory=list)
    """In the order of their steps."""
    answers: dict[str, dict[str, float]] = field(default_factory=dict)
    """By split the means over the answers after the last step."""
    benchmarks: list[Benchmarked] = field(default_factory=list)
    test_arrays: defaultdict[int | None, dict[str, np.ndarray]] = field(default_factory=lambda: defaultdict(dict))
    """By step, then by name."""


def load_parts(connection: Connection, run_ids: RunIds, with_details: bool) -> defaultdict[str, RunParts]:
    """By run id. Without details: only what scores are made of."""
    parts: defaultdict[str, RunParts] = defaultdict(RunParts)
    of_runs = EVALUATIONS.c.run_id.in_(run_ids)
    for row in connection.execute(select(EVALUATIONS).where(of_runs).order_by(EVALUATIONS.c.step)).mappings():
        parts[row["run_id"]].evaluations.append(row)
    _load_answer_means(connection, run_ids, parts)
    _load_benchmarks(connection, run_ids, parts)
    if with_details:
        _load_sites(connection, run_ids, parts)
        _load_outcomes(connection, run_ids, parts)
        _load_training_curves(connection, run_ids, parts)
        _load_traces(connection, run_ids, parts)
        _load_test_arrays(connection, run_ids, parts)
    return parts


def _load_answer_means(connection: Connection, run_ids: RunIds, parts: defaultdict[str, RunParts]) -> None:
    key = (ANSWERS.c.run_id, ANSWERS.c.split, ANSWERS.c.step)
    means = [func.avg(ANSWERS.c[name]) for name in ANSWER_SCORES]
    query = select(*key, *means).where(ANSWERS.c.run_id.in_(run_ids)).group_by(*key).order_by(*key)
    for run_id, split, _, *values in connection.execute(query):
        parts[run_id].answers[split] = dict(zip(ANSWER_SCORES, map(float, values), strict=True))


def _load_benchmarks(connection: Connection, run_ids: RunIds, parts: defaultdict[str, RunParts]) -> None:
    columns = [BENCHMARKS.c[name] for name in ("run_id", "benchmark", "task", "metric", "filter")]
    query = select(BENCHMARKS).where(BENCHMARKS.c.run_id.in_(run_ids)).order_by(*columns)
    rows = connection.execute(query).mappings()
    shared = ("run_id", "benchmark", "fingerprint", "harness", "num_examples")
    for _, group in groupby(rows, key=itemgetter("run_id", "benchmark")):
        of_benchmark = list(group)
        scores = tuple(
            BenchmarkScore(
                task=row["task"],
                metric=row["metric"],
                filter=row["filter"],
                value=or_nan(row["value"]),
                stderr=row["stderr"],
            )
            for row in of_benchmark
        )
        found = Benchmarked(**{name: of_benchmark[0][name] for name in shared}, scores=scores)
        parts[found.run_id].benchmarks.append(found)


def _load_sites(connection: Connection, run_ids: RunIds, parts: defaultdict[str, RunParts]) -> None:
    for run_id, site in _of_sites(connection, ALLOCATIONS, run_ids, SiteAllocation):
        parts[run_id].sites.append(site)


def _load_outcomes(connection: Connection, run_ids: RunIds, parts: defaultdict[str, RunParts]) -> None:
    for run_id, outcome in _of_sites(connection, OUTCOMES, run_ids, SiteOutcome):
        parts[run_id].outcomes.append(outcome)
    revisions = select(REVISIONS).where(REVISIONS.c.run_id.in_(run_ids)).order_by(REVISIONS.c.step)
    for row in connection.execute(revisions).mappings():
        revision = RanksRevised(run_id=row["run_id"], step=row["step"], ranks=tuple(row["ranks"]))
        parts[row["run_id"]].revisions.append(revision)


def _of_sites(
    connection: Connection, table: Table, run_ids: RunIds, kind: Callable[..., Value]
) -> Iterator[tuple[str, Value]]:
    """A run's id and a value for each row, in the order of the sites. Runs of an arm share most of their rows, and then
    the values."""
    names = [column.name for column in table.columns if column.name not in ("run_id", "position")]
    query = select(table.c.run_id, *(table.c[name] for name in names)).where(table.c.run_id.in_(run_ids))
    known: dict[tuple[Any, ...], Value] = {}
    for run_id, *row in connection.execute(query.order_by(table.c.position)):
        cells = tuple(row)
        if cells not in known:
            known[cells] = kind(**dict(zip(names, cells, strict=True)))
        yield run_id, known[cells]


def _load_training_curves(connection: Connection, run_ids: RunIds, parts: defaultdict[str, RunParts]) -> None:
    names = ("run_id", "step", "loss_nats", "grad_norm", "learning_rate")
    columns = [MEASUREMENTS.c[name] for name in names]
    query = select(*columns).where(MEASUREMENTS.c.run_id.in_(run_ids)).order_by(*columns[:2])
    for run_id, step, loss_nats, grad_norm, learning_rate in connection.execute(query):
        found = parts[run_id]
        found.training_curve.append(CurvePoint(step=step, value=or_nan(loss_nats)))
        found.grad_norm_curve.append(CurvePoint(step=step, value=or_nan(grad_norm)))
        found.learning_rate_curve.append(CurvePoint(step=step, value=learning_rate))


def _load_traces(connection: Connection, run_ids: RunIds, parts: defaultdict[str, RunParts]) -> None:
    query = select(TRACES).where(TRACES.c.run_id.in_(run_ids))
    ordered = connection.execute(query.order_by(TRACES.c.run_id, TRACES.c.step, TRACES.c.position))
    for (run_id, step), rows in groupby(ordered, key=lambda row: (row.run_id, row.step)):
        columns = zip(*((r.site_group, r.grad_norm, r.update_norm, r.weight_norm) for r in rows), strict=True)
        groups, *norms = columns
        grad_norms, update_norms, weight_norms = (tuple(map(or_nan, norm)) for norm in norms)
        trace = StepTrace(
            run_id=run_id,
            step=step,
            groups=groups,
            grad_norms=grad_norms,
            update_norms=update_norms,
            weight_norms=weight_norms,
        )
        parts[run_id].traces.append(trace)


def _load_test_arrays(connection: Connection, run_ids: RunIds, parts: defaultdict[str, RunParts]) -> None:
    of_test = EXAMPLE_LOSSES.c.run_id.in_(run_ids) & (EXAMPLE_LOSSES.c.split == "test")
    for row in connection.execute(select(EXAMPLE_LOSSES).where(of_test)).mappings():
        array = decode_array(row["dtype"], row["shape"], row["data"])
        parts[row["run_id"]].test_arrays[row["step"]][row["name"]] = array


def or_nan(value: float | None) -> float:
    """SQLite has no NaN and stores NULL for it."""
    return math.nan if value is None else value
