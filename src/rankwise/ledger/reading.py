"""Rows as the read model of `results.py`."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeVar

import numpy as np
from sqlalchemy import Connection, RowMapping, Select, Table, and_, func, select

from rankwise.errors import LedgerError
from rankwise.ledger.connection import describe
from rankwise.ledger.results import AnswerRow, CurvePoint, RunRow, StudyResults
from rankwise.ledger.schema import (
    ALLOCATIONS,
    ANSWERS,
    BENCHMARKS,
    ENVIRONMENTS,
    EVALUATIONS,
    EXAMPLE_LOSSES,
    MEASUREMENTS,
    OUTCOMES,
    QUESTIONS,
    REVISIONS,
    RUNS,
    STUDIES,
    STUDY_RUNS,
    TRACES,
)
from rankwise.ledger.studies import unknown_study
from rankwise.ledger.writing import decode_array
from rankwise.records import Benchmarked, BenchmarkScore, RanksRevised, SiteAllocation, SiteOutcome, StepTrace

Value = TypeVar("Value")
RunIds = Select[tuple[str]]
"""A query for the runs that are wanted."""

_COPIED = tuple(column.name for column in RUNS.columns if column.name in {f.name for f in fields(RunRow)} - {"error"})
"""Columns of `runs` that `RunRow` has under the same names and with the same meaning."""


ANSWER_SCORES = ("exact_match", "rouge_l", "chrf")
"""Columns of `answers` whose means are scores."""


@dataclass
class _Parts:
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


def study_results(connection: Connection, study_name: str, *, with_details: bool) -> StudyResults:
    row = connection.execute(select(STUDIES).where(STUDIES.c.name == study_name)).mappings().one_or_none()
    if row is None:
        raise unknown_study(connection, study_name)
    return StudyResults(
        name=study_name,
        hypothesis=row["hypothesis"],
        study=row["study"],
        runs=_study_runs(connection, row["study"], study_name, with_details),
        environment=_last_environment(connection, [study_name], math.inf),
        environments=_environments(connection, study_name) if with_details else {},
        chosen_learning_rates=row["chosen_learning_rates"],
        data_summary=row["data_summary"],
        quantization_errors=row["quantization_errors"] or {},
        base_benchmarks=row["base_benchmarks"] or {},
    )


def _study_runs(
    connection: Connection, study: Mapping[str, Any], study_name: str, with_details: bool
) -> tuple[RunRow, ...]:
    """In the order of the arms, tuning first, then by learning rate and seed."""
    of_study = STUDY_RUNS.c.study == study_name
    query = select(STUDY_RUNS.c.arm, STUDY_RUNS.c.purpose, RUNS).join(RUNS).where(of_study)
    parts = _load_parts(connection, select(STUDY_RUNS.c.run_id).where(of_study), with_details)
    rows = [_run_row(row, row["arm"], row["purpose"], parts[row["id"]]) for row in connection.execute(query).mappings()]
    order = {arm["name"]: index for index, arm in enumerate(study["arms"])}
    return tuple(sorted(rows, key=lambda r: (order[r.arm], r.purpose != "tuning", r.learning_rate, r.seed, r.id)))


def one_run(connection: Connection, prefix: str) -> RunRow:
    """The run whose id begins so, under the first of its names by `memberships`."""
    matches = connection.scalars(select(RUNS.c.id).where(RUNS.c.id.startswith(prefix, autoescape=True)).limit(6)).all()
    if len(matches) != 1:
        place = f"ledger {describe(connection.engine.url)}"
        if not matches:
            raise LedgerError(
                f"{place}: no run's id begins with {prefix!r}. `rankwise runs list` shows those it holds."
            )
        raise LedgerError(
            f"{place}: {prefix!r} begins several ids ({', '.join(sorted(matches)[:5])}, …). Give more digits."
        )
    row = connection.execute(select(RUNS).where(RUNS.c.id == matches[0])).mappings().one()
    parts = _load_parts(connection, select(RUNS.c.id).where(RUNS.c.id == matches[0]), with_details=True)
    # A run that no study plans any more has no arm; its strategy is what can still be said.
    _, arm, purpose = next(iter(memberships(connection, matches[0])), ("", row["strategy"], "report"))
    return _run_row(row, arm, purpose, parts[matches[0]])


def memberships(connection: Connection, run_id: str) -> list[tuple[str, str, str]]:
    """Study, arm and purpose of every place that the run has."""
    columns = (STUDY_RUNS.c.study, STUDY_RUNS.c.arm, STUDY_RUNS.c.purpose)
    rows = connection.execute(select(*columns).where(STUDY_RUNS.c.run_id == run_id).order_by(*columns))
    return [(study, arm, purpose) for study, arm, purpose in rows]


def environment_of(connection: Connection, run_id: str) -> dict[str, str]:
    """Of the session that claimed the run last: the newest one recorded before the claim; empty where none was."""
    claimed_at = connection.scalar(select(RUNS.c.claimed_at).where(RUNS.c.id == run_id))
    studies = [study for study, _, _ in memberships(connection, run_id)]
    return _last_environment(connection, studies, claimed_at) if claimed_at is not None else {}


def _environments(connection: Connection, study_name: str) -> dict[str, dict[str, str]]:
    """`environment_of` every run of a study at once; runs of one session share one object."""
    of_study = select(STUDY_RUNS.c.run_id).where(STUDY_RUNS.c.study == study_name)
    places = select(RUNS.c.id, RUNS.c.claimed_at, STUDY_RUNS.c.study).join(STUDY_RUNS).where(RUNS.c.id.in_(of_study))
    columns = (ENVIRONMENTS.c.study, ENVIRONMENTS.c.recorded_at, ENVIRONMENTS.c.id, ENVIRONMENTS.c.environment)
    sessions = list(connection.execute(select(*columns).order_by(ENVIRONMENTS.c.id)))
    newest: dict[str, tuple[int, dict[str, str]]] = {}
    for run_id, claimed_at, study in connection.execute(places):
        for name, recorded_at, number, environment in sessions:
            is_before = name == study and claimed_at is not None and recorded_at <= claimed_at
            if is_before and number > newest.get(run_id, (-1, {}))[0]:
                newest[run_id] = number, environment
    return {run_id: environment for run_id, (_, environment) in newest.items()}


def _last_environment(connection: Connection, studies: list[str], until: float) -> dict[str, str]:
    query = select(ENVIRONMENTS.c.environment).where(ENVIRONMENTS.c.study.in_(studies))
    if math.isfinite(until):
        query = query.where(ENVIRONMENTS.c.recorded_at <= until)
    return connection.scalars(query.order_by(ENVIRONMENTS.c.id.desc()).limit(1)).first() or {}


def _run_row(row: RowMapping, arm: str, purpose: Any, parts: _Parts) -> RunRow:
    validation = [evaluation for evaluation in parts.evaluations if evaluation["split"] == "validation"]
    arrays = parts.test_arrays[_last_step(parts, "test")] if row["status"] == "finished" else {}
    return RunRow(
        **{name: row[name] for name in _COPIED},
        arm=arm,
        purpose=purpose,
        error=_error(row),
        sites=tuple(parts.sites),
        outcomes=tuple(parts.outcomes),
        revisions=tuple(parts.revisions),
        traces=tuple(parts.traces),
        scores=_scores(row["status"], parts),
        benchmarks=tuple(parts.benchmarks),
        example_loss_nats=arrays.get("example_loss_nats"),
        example_answer_tokens=arrays.get("example_answer_tokens"),
        training_curve=tuple(parts.training_curve),
        grad_norm_curve=tuple(parts.grad_norm_curve),
        learning_rate_curve=tuple(parts.learning_rate_curve),
        validation_curve=tuple(CurvePoint(step=e["step"], value=_number(e["loss_nats"])) for e in validation),
    )


def _error(row: RowMapping) -> str | None:
    return f"step {row['diverged_step']}: {row['diverged_cause']}" if row["status"] == "diverged" else row["error"]


def _scores(status: str, parts: _Parts) -> dict[str, float]:
    """Final scores are those of finished runs: half-trained and diverged ones would be mistaken for results."""
    scores: dict[str, float] = {}
    for evaluation in parts.evaluations:
        split, loss = evaluation["split"], _number(evaluation["loss_nats"])
        if split in ("validation", "general") and evaluation["step"] == 0:
            scores[f"initial_{split}_loss"] = loss
        if status == "finished" and evaluation["step"] == _last_step(parts, split):
            scores[f"{split}_loss"] = loss
            if split != "general":
                scores[f"{split}_token_accuracy"] = _number(evaluation["token_accuracy"])
            if split == "test":
                with np.errstate(over="ignore"):  # of a run that did not diverge, but nearly
                    scores["test_perplexity"] = float(np.exp(loss))
                if evaluation["calibration_error"] is not None:
                    scores["test_calibration_error"] = evaluation["calibration_error"]
                scores |= {f"test_{name}": mean for name, mean in parts.answers.get("test", {}).items()}
    if "general_loss" in scores and "initial_general_loss" in scores:
        scores["forgetting"] = scores["general_loss"] - scores["initial_general_loss"]
    if status == "finished":
        scores |= {s.key(found.benchmark): s.value for found in parts.benchmarks for s in found.scores}
    return scores


def _last_step(parts: _Parts, split: str) -> int | None:
    return max((e["step"] for e in parts.evaluations if e["split"] == split), default=None)


def _number(value: float | None) -> float:
    """SQLite has no NaN and stores NULL for it."""
    return math.nan if value is None else value


def _load_parts(connection: Connection, run_ids: RunIds, with_details: bool) -> defaultdict[str, _Parts]:
    parts: defaultdict[str, _Parts] = defaultdict(_Parts)
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


def _load_answer_means(connection: Connection, run_ids: RunIds, parts: defaultdict[str, _Parts]) -> None:
    key = (ANSWERS.c.run_id, ANSWERS.c.split, ANSWERS.c.step)
    means = [func.avg(ANSWERS.c[name]) for name in ANSWER_SCORES]
    query = select(*key, *means).where(ANSWERS.c.run_id.in_(run_ids)).group_by(*key).order_by(*key)
    for run_id, split, _, *values in connection.execute(query):
        parts[run_id].answers[split] = dict(zip(ANSWER_SCORES, map(float, values), strict=True))


def _load_benchmarks(connection: Connection, run_ids: RunIds, parts: defaultdict[str, _Parts]) -> None:
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
                value=_number(row["value"]),
                stderr=row["stderr"],
            )
            for row in of_benchmark
        )
        found = Benchmarked(**{name: of_benchmark[0][name] for name in shared}, scores=scores)
        parts[found.run_id].benchmarks.append(found)


def answers(connection: Connection, run_id: str) -> tuple[AnswerRow, ...]:
    """What a run answered to its test examples after its last step, with the loss of each expected answer."""
    of_run = (ANSWERS.c.run_id == run_id) & (ANSWERS.c.split == "test")
    last = select(func.max(ANSWERS.c.step)).where(of_run).scalar_subquery()
    same = [QUESTIONS.c[name] == ANSWERS.c[name] for name in ("data_fingerprint", "split", "position")]
    query = (
        select(ANSWERS, QUESTIONS.c.question, QUESTIONS.c.expected)
        .join(QUESTIONS, and_(*same))
        .where(of_run & (ANSWERS.c.step == last))
        .order_by(ANSWERS.c.position)
    )
    losses = one_run(connection, run_id).example_loss_nats
    return tuple(
        AnswerRow(
            question=row["question"],
            expected=row["expected"],
            written=row["written"],
            num_tokens=row["num_tokens"],
            exact_match=bool(row["exact_match"]),
            rouge_l=row["rouge_l"],
            chrf=row["chrf"],
            loss_nats=None if losses is None else float(losses[row["position"]]),
        )
        for row in connection.execute(query).mappings()
    )


def _load_sites(connection: Connection, run_ids: RunIds, parts: defaultdict[str, _Parts]) -> None:
    for run_id, site in _of_sites(connection, ALLOCATIONS, run_ids, SiteAllocation):
        parts[run_id].sites.append(site)


def _load_outcomes(connection: Connection, run_ids: RunIds, parts: defaultdict[str, _Parts]) -> None:
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


def _load_training_curves(connection: Connection, run_ids: RunIds, parts: defaultdict[str, _Parts]) -> None:
    names = ("run_id", "step", "loss_nats", "grad_norm", "learning_rate")
    columns = [MEASUREMENTS.c[name] for name in names]
    query = select(*columns).where(MEASUREMENTS.c.run_id.in_(run_ids)).order_by(*columns[:2])
    for run_id, step, loss_nats, grad_norm, learning_rate in connection.execute(query):
        found = parts[run_id]
        found.training_curve.append(CurvePoint(step=step, value=_number(loss_nats)))
        found.grad_norm_curve.append(CurvePoint(step=step, value=_number(grad_norm)))
        found.learning_rate_curve.append(CurvePoint(step=step, value=learning_rate))


def _load_traces(connection: Connection, run_ids: RunIds, parts: defaultdict[str, _Parts]) -> None:
    query = select(TRACES).where(TRACES.c.run_id.in_(run_ids))
    ordered = connection.execute(query.order_by(TRACES.c.run_id, TRACES.c.step, TRACES.c.position))
    for (run_id, step), rows in groupby(ordered, key=lambda row: (row.run_id, row.step)):
        columns = zip(*((r.site_group, r.grad_norm, r.update_norm, r.weight_norm) for r in rows), strict=True)
        groups, *norms = columns
        grad_norms, update_norms, weight_norms = (tuple(map(_number, norm)) for norm in norms)
        trace = StepTrace(
            run_id=run_id,
            step=step,
            groups=groups,
            grad_norms=grad_norms,
            update_norms=update_norms,
            weight_norms=weight_norms,
        )
        parts[run_id].traces.append(trace)


def _load_test_arrays(connection: Connection, run_ids: RunIds, parts: defaultdict[str, _Parts]) -> None:
    of_test = EXAMPLE_LOSSES.c.run_id.in_(run_ids) & (EXAMPLE_LOSSES.c.split == "test")
    for row in connection.execute(select(EXAMPLE_LOSSES).where(of_test)).mappings():
        array = decode_array(row["dtype"], row["shape"], row["data"])
        parts[row["run_id"]].test_arrays[row["step"]][row["name"]] = array
