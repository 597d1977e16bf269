"""Rows as the read model of `results.py`."""

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
from sqlalchemy import Connection, RowMapping, and_, func, select

from rankwise.errors import LedgerError
from rankwise.ledger.connection import describe
from rankwise.ledger.results import AnswerRow, CurvePoint, RunRow, StudyResults
from rankwise.ledger.run_parts import RunParts, load_parts, or_nan
from rankwise.ledger.schema import (
    ANSWERS,
    ENVIRONMENTS,
    QUESTIONS,
    RUNS,
    STUDIES,
    STUDY_RUNS,
)
from rankwise.ledger.studies import unknown_study

_COPIED = tuple(column.name for column in RUNS.columns if column.name in {f.name for f in fields(RunRow)} - {"error"})
"""Columns of `runs` that `RunRow` has under the same names and with the same meaning."""


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
    parts = load_parts(connection, select(STUDY_RUNS.c.run_id).where(of_study), with_details)
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
    parts = load_parts(connection, select(RUNS.c.id).where(RUNS.c.id == matches[0]), with_details=True)
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


def _run_row(row: RowMapping, arm: str, purpose: Any, parts: RunParts) -> RunRow:
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
        validation_curve=tuple(CurvePoint(step=e["step"], value=or_nan(e["loss_nats"])) for e in validation),
    )


def _error(row: RowMapping) -> str | None:
    return f"step {row['diverged_step']}: {row['diverged_cause']}" if row["status"] == "diverged" else row["error"]


def _scores(status: str, parts: RunParts) -> dict[str, float]:
    """Final scores are those of finished runs: half-trained and diverged ones would be mistaken for results."""
    scores: dict[str, float] = {}
    for evaluation in parts.evaluations:
        split, loss = evaluation["split"], or_nan(evaluation["loss_nats"])
        if split in ("validation", "general") and evaluation["step"] == 0:
            scores[f"initial_{split}_loss"] = loss
        if status == "finished" and evaluation["step"] == _last_step(parts, split):
            scores[f"{split}_loss"] = loss
            if split != "general":
                scores[f"{split}_token_accuracy"] = or_nan(evaluation["token_accuracy"])
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


def _last_step(parts: RunParts, split: str) -> int | None:
    return max((e["step"] for e in parts.evaluations if e["split"] == split), default=None)


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
