"""Studies in the ledger: what was asked, which runs answer it, and in which environment they were trained."""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from rankwise.errors import LedgerError
from rankwise.ledger.connection import describe, insert_missing, upsert
from rankwise.ledger.schema import ENVIRONMENTS, RUNS, STUDIES, STUDY_RUNS
from rankwise.study.config import Study
from rankwise.study.runs import Purpose, Run


def register(connection: Connection, study: Study, runs: Sequence[tuple[Run, Purpose]]) -> None:
    _store_study(connection, study)
    _store_runs(connection, study.name, runs)


def _store_study(connection: Connection, study: Study) -> None:
    """A study that was edited starts over: links, choices and counts belong to the old question."""
    document = study.model_dump(mode="json")
    stored = connection.scalar(select(STUDIES.c.study).where(STUDIES.c.name == study.name))
    if stored == document:
        return
    connection.execute(delete(STUDY_RUNS).where(STUDY_RUNS.c.study == study.name))
    row = {
        "name": study.name,
        "hypothesis": study.hypothesis,
        "study": document,
        "chosen_learning_rates": {},
        "data_summary": {},
        "quantization_errors": None,
        "base_benchmarks": None,
        "registered_at": time.time(),
    }
    upsert(connection, STUDIES, [row])


def _store_runs(connection: Connection, study_name: str, runs: Sequence[tuple[Run, Purpose]]) -> None:
    rows = [{"study": study_name, "arm": run.arm.name, "purpose": purpose, "run_id": run.id} for run, purpose in runs]
    ids: dict[tuple[str, Purpose], set[str]] = defaultdict(set)
    for run, purpose in runs:
        ids[run.arm.name, purpose].add(run.id)
    for (arm, purpose), new_ids in ids.items():
        _drop_outdated(connection, study_name, arm, purpose, new_ids)
    insert_missing(connection, RUNS, [_run_row(run) for run in {run.id: run for run, _ in runs}.values()])
    insert_missing(connection, STUDY_RUNS, rows)


def _drop_outdated(connection: Connection, study_name: str, arm: str, purpose: Purpose, new_ids: set[str]) -> None:
    """Unlink what an earlier plan had in this place: another base model or data set makes other runs.

    Reported runs rest on the learning rate chosen by the tuning runs, so they go when those do.
    """
    of_arm = (STUDY_RUNS.c.study == study_name) & (STUDY_RUNS.c.arm == arm)
    of_purpose = of_arm & (STUDY_RUNS.c.purpose == purpose)
    old_ids = set(connection.scalars(select(STUDY_RUNS.c.run_id).where(of_purpose)))
    if old_ids != new_ids:
        connection.execute(delete(STUDY_RUNS).where(of_arm if purpose == "tuning" else of_purpose))


def _run_row(run: Run) -> dict[str, Any]:
    return {
        "id": run.id,
        "spec": run.spec(),
        "strategy": run.arm.strategy,
        "learning_rate": run.learning_rate,
        "seed": run.seed,
        "status": "pending",
    }


def set_on_study(connection: Connection, study_name: str, **values: Mapping[str, Any]) -> None:
    """Store JSON documents in columns of the study's row."""
    plain = {name: dict(value) for name, value in values.items()}
    if not connection.execute(update(STUDIES).where(STUDIES.c.name == study_name).values(plain)).rowcount:
        raise unknown_study(connection, study_name)


def add_environment(connection: Connection, study_name: str, environment: Mapping[str, str]) -> None:
    """One row per session; the last one is the study's."""
    if study_name not in study_names(connection):
        raise unknown_study(connection, study_name)
    row = {"study": study_name, "recorded_at": time.time(), "environment": dict(environment)}
    connection.execute(insert(ENVIRONMENTS).values(row))


def study_names(connection: Connection) -> list[str]:
    return list(connection.scalars(select(STUDIES.c.name).order_by(STUDIES.c.name)))


def unknown_study(connection: Connection, study_name: str) -> LedgerError:
    names = study_names(connection)
    held = f"it holds {', '.join(names)}" if names else "it holds no study yet"
    return LedgerError(
        f"ledger {describe(connection.engine.url)}: there is no study {study_name!r}; {held}. Run the study first, or "
        "name its ledger with --ledger."
    )
