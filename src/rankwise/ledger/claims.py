"""Who trains what: a run is claimed by one worker at a time, and a worker that died loses its claims.

A worker is named `host:pid:token`; its claim holds as long as its heartbeats come. The clock is the database's where
several machines share one.
"""

import os
import secrets
import socket
import time
from collections.abc import Iterable, Sequence

import psutil
from sqlalchemy import ColumnElement, Connection, RowMapping, func, select, update

from rankwise.errors import LedgerError
from rankwise.ledger.connection import describe
from rankwise.ledger.results import RunStatus
from rankwise.ledger.schema import RUNS, STUDY_RUNS

DONE: tuple[RunStatus, ...] = ("finished", "diverged")
STALE_AFTER_S = 120.0


def worker_name() -> str:
    """A new name for a worker of this process: `host:pid:token`."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


def pending(connection: Connection, study_name: str, stale_after_s: float) -> list[str]:
    """Ids of the study's runs that nobody works on, in a fixed order."""
    of_study = RUNS.c.id.in_(select(STUDY_RUNS.c.run_id).where(STUDY_RUNS.c.study == study_name))
    query = select(RUNS).where(of_study, RUNS.c.status.not_in(DONE)).order_by(RUNS.c.id)
    now = _now(connection)
    rows = connection.execute(query).mappings()
    return [row["id"] for row in rows if _is_free(row, now, stale_after_s)]


def claim(connection: Connection, run_ids: Sequence[str], worker: str, stale_after_s: float) -> list[str]:
    # Rows that another claim holds locked are skipped, not waited for (PostgreSQL; SQLite has one writer anyway).
    query = select(RUNS).where(RUNS.c.id.in_(run_ids), RUNS.c.status.not_in(DONE)).with_for_update(skip_locked=True)
    now = _now(connection)
    rows = connection.execute(query).mappings().all()
    free = {row["id"] for row in rows if row["worker"] == worker or _is_free(row, now, stale_after_s)}
    values = {"status": "running", "worker": worker, "claimed_at": now, "heartbeat_at": now, "error": None}
    connection.execute(update(RUNS).where(RUNS.c.id.in_(free)).values(values))
    return [run_id for run_id in dict.fromkeys(run_ids) if run_id in free]


def heartbeat(connection: Connection, run_ids: Sequence[str], worker: str) -> list[str]:
    owned = _owned(run_ids, worker)
    connection.execute(update(RUNS).where(owned).values(heartbeat_at=_now(connection)))
    held = set(connection.scalars(select(RUNS.c.id).where(owned)))
    return [run_id for run_id in run_ids if run_id in held]


def release(connection: Connection, run_ids: Sequence[str], worker: str) -> None:
    connection.execute(update(RUNS).where(_owned(run_ids, worker)).values(status="pending", worker=None))


def mark_failed(connection: Connection, run_id: str, error: str) -> None:
    _require_all([run_id], connection.scalars(select(RUNS.c.id).where(RUNS.c.id == run_id)), connection)
    unfinished = (RUNS.c.id == run_id) & RUNS.c.status.not_in(DONE)
    connection.execute(update(RUNS).where(unfinished).values(status="failed", worker=None, error=error))


def statuses(connection: Connection, run_ids: Sequence[str]) -> dict[str, RunStatus]:
    query = select(RUNS.c.id, RUNS.c.status).where(RUNS.c.id.in_(run_ids))
    found: dict[str, RunStatus] = {row.id: row.status for row in connection.execute(query)}
    _require_all(run_ids, found, connection)
    return {run_id: found[run_id] for run_id in run_ids}


def require_writable(connection: Connection, run_ids: Iterable[str], worker: str | None) -> None:
    """Raise LedgerError unless all runs are registered and, where a worker is named, are its own until the commit."""
    ids = sorted(set(run_ids))
    query = select(RUNS.c.id, RUNS.c.worker).where(RUNS.c.id.in_(ids)).with_for_update()
    owners: dict[str, str | None] = {row.id: row.worker for row in connection.execute(query)}
    _require_all(ids, owners, connection)
    if worker is None:
        return
    lost = {run_id: owner for run_id, owner in owners.items() if owner != worker}
    if lost:
        named = ", ".join(f"{run_id} ({owner or 'nobody'} has it)" for run_id, owner in lost.items())
        raise LedgerError(
            f"ledger {describe(connection.engine.url)}: worker {worker} no longer owns {named}, so nothing was "
            "written. Its heartbeats stopped for too long, or the runs were released; stop training them here."
        )
    connection.execute(update(RUNS).where(_owned(ids, worker)).values(heartbeat_at=_now(connection)))


def _require_all(run_ids: Iterable[str], found: Iterable[str], connection: Connection) -> None:
    missing = sorted(set(run_ids) - set(found))
    if missing:
        raise LedgerError(
            f"ledger {describe(connection.engine.url)}: runs {', '.join(missing[:5])} are not registered. Register the "
            "study before its runs are claimed or written."
        )


def _owned(run_ids: Sequence[str], worker: str) -> ColumnElement[bool]:
    return RUNS.c.id.in_(run_ids) & (RUNS.c.status == "running") & (RUNS.c.worker == worker)


def _is_free(row: RowMapping, now: float, stale_after_s: float) -> bool:
    """Whether nobody works on an unfinished run."""
    if row["status"] != "running":
        return True
    return now - row["heartbeat_at"] > stale_after_s or _is_known_dead(row["worker"])


def _is_known_dead(worker: str) -> bool:
    """Whether the worker ran on this machine and its process is gone; one elsewhere may be alive."""
    host, _, process = worker.rpartition(":")[0].rpartition(":")
    return host == socket.gethostname() and process.isdigit() and not psutil.pid_exists(int(process))


def _now(connection: Connection) -> float:
    """Seconds since 1970."""
    if connection.dialect.name == "postgresql":
        return float(connection.scalars(select(func.extract("epoch", func.clock_timestamp()))).one())
    return time.time()
