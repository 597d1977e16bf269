"""Records as rows. Natural keys make every write idempotent: what is written again replaces what was there."""

import time
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
from sqlalchemy import Connection, delete, insert, update

from rankwise.ledger.connection import upsert
from rankwise.ledger.schema import ALLOCATIONS, EVALUATIONS, EXAMPLE_LOSSES, MEASUREMENTS, RUNS
from rankwise.records import Evaluated, Record, RunAllocated, RunDiverged, RunFinished, StepDone

EXAMPLE_ARRAYS = {"example_loss_nats": "<f8", "example_answer_tokens": "<i4", "example_correct_tokens": "<i4"}
"""The arrays of `Evaluated` and the number format they are stored in."""

AnyRecord = TypeVar("AnyRecord", bound=Record)


def write_records(connection: Connection, records: Sequence[Record]) -> None:
    """Write records of any kinds and runs, in the order in which a run goes through them."""
    for allocated in _of_kind(records, RunAllocated):
        _write_allocation(connection, allocated)
    upsert(connection, MEASUREMENTS, [_step_row(step) for step in _of_kind(records, StepDone)])
    _write_evaluations(connection, _of_kind(records, Evaluated))
    for diverged in _of_kind(records, RunDiverged):
        _set_on_run(connection, diverged.run_id, diverged_step=diverged.step, diverged_cause=diverged.cause)
    for finished in _of_kind(records, RunFinished):
        _write_finish(connection, finished)


def _of_kind(records: Iterable[Record], kind: type[AnyRecord]) -> list[AnyRecord]:
    return [record for record in records if isinstance(record, kind)]


def _write_allocation(connection: Connection, record: RunAllocated) -> None:
    connection.execute(delete(ALLOCATIONS).where(ALLOCATIONS.c.run_id == record.run_id))
    rows = [{"run_id": record.run_id, "position": i, **vars(site)} for i, site in enumerate(record.sites)]
    if rows:
        connection.execute(insert(ALLOCATIONS), rows)
    totals = {name: getattr(record, name) for name in ("budget_params", "params", "residual_params", "probe_wall_s")}
    _set_on_run(connection, record.run_id, **totals)


def _step_row(record: StepDone) -> dict[str, Any]:
    return dict(vars(record))


def _write_evaluations(connection: Connection, records: Sequence[Evaluated]) -> None:
    rows = [{name: value for name, value in vars(record).items() if name not in EXAMPLE_ARRAYS} for record in records]
    upsert(connection, EVALUATIONS, rows)
    upsert(connection, EXAMPLE_LOSSES, [row for record in records for row in _example_rows(record)])


def _example_rows(record: Evaluated) -> list[dict[str, Any]]:
    key = {"run_id": record.run_id, "split": record.split, "step": record.step}
    arrays = {name: np.asarray(getattr(record, name)).astype(dtype) for name, dtype in EXAMPLE_ARRAYS.items()}
    return [
        {**key, "name": name, "dtype": EXAMPLE_ARRAYS[name], "shape": list(array.shape), "data": array.tobytes()}
        for name, array in arrays.items()
    ]


def _write_finish(connection: Connection, record: RunFinished) -> None:
    values = {name: value for name, value in vars(record).items() if name != "run_id"}
    if record.status == "finished":
        values |= {"diverged_step": None, "diverged_cause": None}
    _set_on_run(connection, record.run_id, **values, error=None, finished_at=time.time())
    # An attempt that died may have come further than the one that now ended (a run that diverged earlier).
    for table in (MEASUREMENTS, EVALUATIONS):
        beyond = (table.c.run_id == record.run_id) & (table.c.step > record.steps)
        connection.execute(delete(table).where(beyond))


def _set_on_run(connection: Connection, run_id: str, **values: Any) -> None:
    connection.execute(update(RUNS).where(RUNS.c.id == run_id).values(values))


def decode_array(dtype: str, shape: Sequence[int], data: bytes) -> np.ndarray:
    """The inverse of what `_example_rows` stores: float64 or int64, in its own memory."""
    array = np.frombuffer(data, dtype=dtype).reshape(shape)
    return array.astype(np.float64 if array.dtype.kind == "f" else np.int64)
