"""Records as rows. Natural keys make every write idempotent: what is written again replaces what was there."""

import time
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
from sqlalchemy import Connection, Table, delete, insert, update

from rankwise.ledger.connection import insert_missing, upsert
from rankwise.ledger.schema import (
    ALLOCATIONS,
    ANSWERS,
    BENCHMARKS,
    EVALUATIONS,
    EXAMPLE_LOSSES,
    MEASUREMENTS,
    OUTCOMES,
    QUESTIONS,
    REVISIONS,
    RUNS,
    TRACES,
)
from rankwise.records import (
    Answered,
    Benchmarked,
    Evaluated,
    RanksRevised,
    Record,
    RunAllocated,
    RunAudited,
    RunDiverged,
    RunFailed,
    RunFinished,
    StepDone,
    StepTrace,
)

EXAMPLE_ARRAYS = {"example_loss_nats": "<f8", "example_answer_tokens": "<i4", "example_correct_tokens": "<i4"}
"""The arrays of `Evaluated` and the number format they are stored in."""

AnyRecord = TypeVar("AnyRecord", bound=Record)


def write_records(connection: Connection, records: Sequence[Record]) -> None:
    """Write records of any kinds and runs, in the order in which a run goes through them."""
    for allocated in _of_kind(records, RunAllocated):
        _write_allocation(connection, allocated)
    upsert(connection, MEASUREMENTS, [_step_row(step) for step in _of_kind(records, StepDone)])
    upsert(connection, TRACES, [row for trace in _of_kind(records, StepTrace) for row in _trace_rows(trace)])
    upsert(connection, REVISIONS, [_revision_row(revision) for revision in _of_kind(records, RanksRevised)])
    _write_evaluations(connection, _of_kind(records, Evaluated))
    answered = _of_kind(records, Answered)
    insert_missing(connection, QUESTIONS, [row for record in answered for row in _question_rows(record)])
    upsert(connection, ANSWERS, [row for record in answered for row in _answer_rows(record)])
    for benchmarked in _of_kind(records, Benchmarked):
        _write_benchmark(connection, benchmarked)
    for audited in _of_kind(records, RunAudited):
        _write_outcome(connection, audited)
    for diverged in _of_kind(records, RunDiverged):
        _set_on_run(connection, diverged.run_id, diverged_step=diverged.step, diverged_cause=diverged.cause)
    for failed in _of_kind(records, RunFailed):
        _set_on_run(connection, failed.run_id, status="failed", worker=None, error=failed.cause)
    for finished in _of_kind(records, RunFinished):
        _write_finish(connection, finished)


def _of_kind(records: Iterable[Record], kind: type[AnyRecord]) -> list[AnyRecord]:
    return [record for record in records if isinstance(record, kind)]


def _write_allocation(connection: Connection, record: RunAllocated) -> None:
    _replace_sites(connection, ALLOCATIONS, record)
    # A new attempt: what an earlier one did and left is not its own.
    for table in (OUTCOMES, REVISIONS):
        connection.execute(delete(table).where(table.c.run_id == record.run_id))
    totals = {name: value for name, value in vars(record).items() if name not in ("run_id", "sites")}
    _set_on_run(connection, record.run_id, **totals, stored_params=None, held_params=None)


def _write_outcome(connection: Connection, record: RunAudited) -> None:
    _replace_sites(connection, OUTCOMES, record)
    _set_on_run(connection, record.run_id, stored_params=record.params, held_params=record.held_params)


def _replace_sites(connection: Connection, table: Table, record: RunAllocated | RunAudited) -> None:
    """One row a site, in order, instead of all that an earlier attempt left."""
    connection.execute(delete(table).where(table.c.run_id == record.run_id))
    rows = [{"run_id": record.run_id, "position": i, **vars(site)} for i, site in enumerate(record.sites)]
    if rows:
        connection.execute(insert(table), rows)


def _step_row(record: StepDone) -> dict[str, Any]:
    return dict(vars(record))


def _revision_row(record: RanksRevised) -> dict[str, Any]:
    return {"run_id": record.run_id, "step": record.step, "ranks": list(record.ranks)}


def _trace_rows(record: StepTrace) -> list[dict[str, Any]]:
    columns = zip(record.groups, record.grad_norms, record.update_norms, record.weight_norms, strict=True)
    return [
        {
            "run_id": record.run_id,
            "step": record.step,
            "position": position,
            "site_group": group,
            "grad_norm": grad_norm,
            "update_norm": update_norm,
            "weight_norm": weight_norm,
        }
        for position, (group, grad_norm, update_norm, weight_norm) in enumerate(columns)
    ]


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


def _question_rows(record: Answered) -> list[dict[str, Any]]:
    key = {"data_fingerprint": record.data_fingerprint, "split": record.split}
    return [
        {**key, "position": position, "question": answer.question, "expected": answer.expected}
        for position, answer in enumerate(record.answers)
    ]


def _answer_rows(record: Answered) -> list[dict[str, Any]]:
    key = {
        "run_id": record.run_id,
        "split": record.split,
        "step": record.step,
        "data_fingerprint": record.data_fingerprint,
    }
    return [
        {
            **key,
            "position": position,
            "written": answer.written,
            "num_tokens": answer.num_tokens,
            "exact_match": int(answer.exact_match),
            "rouge_l": answer.rouge_l,
            "chrf": answer.chrf,
        }
        for position, answer in enumerate(record.answers)
    ]


def _write_benchmark(connection: Connection, record: Benchmarked) -> None:
    """Takes the place of all that the same benchmark said before: another version may have other metrics."""
    of_benchmark = (BENCHMARKS.c.run_id == record.run_id) & (BENCHMARKS.c.benchmark == record.benchmark)
    connection.execute(delete(BENCHMARKS).where(of_benchmark))
    shared = {name: value for name, value in vars(record).items() if name != "scores"}
    if record.scores:
        connection.execute(insert(BENCHMARKS), [shared | vars(score) for score in record.scores])


def _write_finish(connection: Connection, record: RunFinished) -> None:
    values = {name: value for name, value in vars(record).items() if name != "run_id"}
    if record.status == "finished":
        values |= {"diverged_step": None, "diverged_cause": None}
    _set_on_run(connection, record.run_id, **values, error=None, finished_at=time.time())
    # An attempt that died may have come further than the one that now ended (a run that diverged earlier).
    for table in (MEASUREMENTS, TRACES, REVISIONS, EVALUATIONS, ANSWERS):
        beyond = (table.c.run_id == record.run_id) & (table.c.step > record.steps)
        connection.execute(delete(table).where(beyond))


def _set_on_run(connection: Connection, run_id: str, **values: Any) -> None:
    connection.execute(update(RUNS).where(RUNS.c.id == run_id).values(values))


def decode_array(dtype: str, shape: Sequence[int], data: bytes) -> np.ndarray:
    """The inverse of what `_example_rows` stores: float64 or int64, in its own memory."""
    array = np.frombuffer(data, dtype=dtype).reshape(shape)
    return array.astype(np.float64 if array.dtype.kind == "f" else np.int64)
