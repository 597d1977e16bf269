"""The ledger's front door: every method is one transaction, and the rules behind it stand in the module it calls."""

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Connection, Engine

from rankwise.errors import LedgerError
from rankwise.ledger import claims, reading, studies
from rankwise.ledger.claims import STALE_AFTER_S
from rankwise.ledger.connection import DEFAULT_URL, connect, describe, parse_url, transaction, use_write_ahead_log
from rankwise.ledger.migrations import is_current, migrate
from rankwise.ledger.results import AnswerRow, RunRow, RunStatus, StudyResults
from rankwise.ledger.writing import write_records
from rankwise.records import Record
from rankwise.study.config import Study
from rankwise.study.runs import Purpose, Run

if TYPE_CHECKING:
    import pandas


def open_ledger(url: str | None = None, *, create: bool = True) -> "Ledger":
    """Open a ledger, making it or bringing it to the current schema first where that is needed.

    `url` is a path, `sqlite:///PATH` or `postgresql+psycopg://…`; None means the environment variable RANKWISE_LEDGER
    or, without it, `rankwise.db` in the working directory. With `create=False` a file must be there already.

    Use it as a context manager, and open one per process: threads may share it, forked processes may not.

    Raises LedgerError where there is no such ledger, it cannot be written, is not a database, or is of a newer version.
    """
    place = parse_url(url or os.environ.get("RANKWISE_LEDGER") or DEFAULT_URL)
    if not create:
        _require_file(place)
    engine = connect(place)
    try:
        with transaction(engine, writes=False) as connection:
            ready = is_current(connection)
        if not ready:
            use_write_ahead_log(engine)
            with transaction(engine, writes=True) as connection:
                migrate(connection)
    except LedgerError:
        engine.dispose()
        raise
    return Ledger(engine)


def _require_file(url: URL) -> None:
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        raise LedgerError(
            f"ledger {describe(url)}: there is no such file. `rankwise study` makes it; name another one with --ledger "
            "or RANKWISE_LEDGER."
        )


class Ledger:
    """An open ledger. Every method raises LedgerError, with nothing of it stored, where the database refuses."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._engine.dispose()

    @property
    def place(self) -> str:
        """The path of its file, or its URL without the password."""
        return describe(self._engine.url)

    # What is asked

    def register_study(self, study: Study, runs: Sequence[tuple[Run, Purpose]]) -> None:
        """Store a study and link it to its runs; those it has never seen wait as pending. Safe to repeat.

        Per arm and purpose, `runs` is the whole plan: links that an earlier plan (an edited study, another base model)
        had there are dropped, and reported runs go with the tuning runs that they rest on. The runs themselves stay.
        """
        with self._write() as connection:
            studies.register(connection, study, runs)

    def set_environment(self, study_name: str, environment: Mapping[str, str]) -> None:
        """Store versions, device and command of the session that begins to train for the study."""
        with self._write() as connection:
            studies.add_environment(connection, study_name, environment)

    def set_data_summary(self, study_name: str, summary: Mapping[str, Any]) -> None:
        with self._write() as connection:
            studies.set_on_study(connection, study_name, data_summary=summary)

    def set_quantization_errors(self, study_name: str, errors: Mapping[str, Any]) -> None:
        """Store what `StudyResults.quantization_errors` then holds."""
        with self._write() as connection:
            studies.set_on_study(connection, study_name, quantization_errors=errors)

    def set_base_benchmarks(self, study_name: str, found: Mapping[str, Any]) -> None:
        """Store what `StudyResults.base_benchmarks` then holds."""
        with self._write() as connection:
            studies.set_on_study(connection, study_name, base_benchmarks=found)

    def set_chosen_learning_rates(self, study_name: str, rates: Mapping[str, float]) -> None:
        """Store the learning rate of each arm, by its name."""
        with self._write() as connection:
            studies.set_on_study(connection, study_name, chosen_learning_rates=rates)

    # Who trains it

    def pending_runs(self, study_name: str, *, stale_after_s: float = STALE_AFTER_S) -> list[str]:
        """Ids of the study's unfinished runs that nobody works on: never begun, failed, or of a dead or silent worker.

        A failed run may be tried again, because its cause may have gone; who loops over this list leaves out what
        failed in its own hands.
        """
        with self._read() as connection:
            return claims.pending(connection, study_name, stale_after_s)

    def claim(self, run_ids: Sequence[str], worker: str, *, stale_after_s: float = STALE_AFTER_S) -> list[str]:
        """Take those of the runs that nobody works on; returns the ids that are now this worker's, in their order.

        A claim whose last heartbeat is older than `stale_after_s` is taken over, and at once where its worker was a
        process of this machine that is gone. `worker` is a name made by `worker_name()`.
        """
        with self._write() as connection:
            return claims.claim(connection, run_ids, worker, stale_after_s)

    def heartbeat(self, run_ids: Sequence[str], worker: str) -> list[str]:
        """Say that the worker is alive; returns those of the runs that it still owns."""
        with self._write() as connection:
            return claims.heartbeat(connection, run_ids, worker)

    def release(self, run_ids: Sequence[str], worker: str) -> None:
        """Give up the claims that this worker still has on unfinished runs: they are pending again."""
        with self._write() as connection:
            claims.release(connection, run_ids, worker)

    def mark_failed(self, run_id: str, error: str) -> None:
        """Record why a run could not be trained. A run that ended before stays as it ended."""
        with self._write() as connection:
            claims.mark_failed(connection, run_id, error)

    def write(self, records: Sequence[Record], worker: str | None = None) -> None:
        """Store records in one transaction. The same record twice is stored once; a later one replaces an earlier.

        `AdapterTrained` belongs into a folder, and is not stored here.

        With a `worker`, raises LedgerError and writes nothing unless all the runs are that worker's.
        """
        if not records:
            return
        with self._write() as connection:
            claims.require_writable(connection, [record.run_id for record in records], worker)
            write_records(connection, records)

    # What is known

    def study_names(self) -> list[str]:
        with self._read() as connection:
            return studies.study_names(connection)

    def study_results(self, study_name: str, *, with_details: bool = True) -> StudyResults:
        """All about one study. Without details, sites, training curves and per-example losses are left out."""
        with self._read() as connection:
            return reading.study_results(connection, study_name, with_details=with_details)

    def to_pandas(self, study: str | None = None, *, settings: bool = False) -> "pandas.DataFrame":
        """All runs, or those of one study, as a data frame: what a run is, what became of it, its scores and its cost.

        One row for each place that a run has: a run that two studies or arms share is there twice, with the same `id`.
        With `settings`, each setting is a further column (`arm.train.batch_size`).
        """
        from rankwise.ledger.frames import runs_frame

        return runs_frame(self._all_results(study, with_details=False), settings=settings)

    def metrics_to_pandas(self, study: str | None = None) -> "pandas.DataFrame":
        """Metrics by step of all runs, or of those of one study, as a data frame: one row a run and step.

        Columns: `id`, `step`, then those of `rankwise.ledger.flat.metric_series` that some run has.
        """
        from rankwise.ledger.frames import metrics_frame

        return metrics_frame(self._all_results(study, with_details=True))

    def _all_results(self, study: str | None, *, with_details: bool) -> list[StudyResults]:
        names = self.study_names() if study is None else [study]
        return [self.study_results(name, with_details=with_details) for name in names]

    def run(self, prefix: str) -> RunRow:
        """The run whose id begins with `prefix`, if it is the only one."""
        with self._read() as connection:
            return reading.one_run(connection, prefix)

    def answers(self, run_id: str) -> tuple[AnswerRow, ...]:
        """What a finished run answered to its test examples, in their order; empty where its study did not ask."""
        with self._read() as connection:
            return reading.answers(connection, run_id)

    def run_status(self, run_ids: Sequence[str]) -> dict[str, RunStatus]:
        with self._read() as connection:
            return claims.statuses(connection, run_ids)

    def memberships(self, run_id: str) -> list[tuple[str, str, str]]:
        """Study, arm and purpose of every place that the run has; empty where no study plans it any more."""
        with self._read() as connection:
            return reading.memberships(connection, run_id)

    def environment_of(self, run_id: str) -> dict[str, str]:
        """The environment in which the run was trained; empty where none was recorded before its claim."""
        with self._read() as connection:
            return reading.environment_of(connection, run_id)

    def _read(self) -> AbstractContextManager[Connection]:
        return transaction(self._engine, writes=False)

    def _write(self) -> AbstractContextManager[Connection]:
        return transaction(self._engine, writes=True)
