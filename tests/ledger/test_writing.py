import math
import time
from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import event, func, select

from rankwise.errors import LedgerError
from rankwise.ledger import open_ledger
from rankwise.ledger.schema import (
    ALLOCATIONS,
    EVALUATIONS,
    EXAMPLE_LOSSES,
    MEASUREMENTS,
    OUTCOMES,
    REVISIONS,
    RUNS,
    TRACES,
)
from rankwise.ledger.writing import decode_array
from rankwise.records import (
    AdapterTrained,
    Answered,
    Evaluated,
    RanksRevised,
    RunAllocated,
    RunAudited,
    RunFailed,
    RunFinished,
    StepDone,
    StepTrace,
    WrittenAnswer,
)
from rankwise.testing.sample_ledger import diverged_records, run_records

WORKER = "machine:1:0"


def stored(ledger, table):
    with ledger._read() as connection:
        return [dict(row) for row in connection.execute(select(table)).mappings()]


def num_rows(ledger):
    with ledger._read() as connection:
        tables = (ALLOCATIONS, MEASUREMENTS, EVALUATIONS, EXAMPLE_LOSSES, TRACES, REVISIONS, OUTCOMES)
        return [connection.scalar(select(func.count()).select_from(table)) for table in tables]


def of_kind(records, kind):
    return [record for record in records if isinstance(record, kind)]


@pytest.fixture
def run(runs):
    return next(run for run, purpose in runs if purpose == "report")


@pytest.fixture
def records(run):
    return run_records(run)


def test_a_finished_run_reads_as_it_was_written(registered, run, records):
    registered.write(records)
    row = registered.run(run.id)
    allocated, finished = of_kind(records, RunAllocated)[0], of_kind(records, RunFinished)[0]
    steps, evaluations = of_kind(records, StepDone), of_kind(records, Evaluated)
    initial, general_before, validation, test, general = evaluations
    (answered,) = of_kind(records, Answered)
    assert row.sites == allocated.sites
    for name in set(vars(allocated)) - {"run_id", "sites"}:
        assert getattr(row, name) == getattr(allocated, name)
    for name in set(vars(finished)) - {"run_id"}:
        assert getattr(row, name) == getattr(finished, name)
    assert [(point.step, point.value) for point in row.training_curve] == [(s.step, s.loss_nats) for s in steps]
    assert [(point.step, point.value) for point in row.grad_norm_curve] == [(s.step, s.grad_norm) for s in steps]
    assert [(p.step, p.value) for p in row.learning_rate_curve] == [(s.step, s.learning_rate) for s in steps]
    assert [(p.step, p.value) for p in row.validation_curve] == [(e.step, e.loss_nats) for e in (initial, validation)]
    assert row.scores == {
        "initial_validation_loss": initial.loss_nats,
        "validation_loss": validation.loss_nats,
        "validation_token_accuracy": validation.token_accuracy,
        "test_loss": test.loss_nats,
        "test_token_accuracy": test.token_accuracy,
        "test_perplexity": test.perplexity,
        "test_calibration_error": test.calibration_error,
        "test_exact_match": 0.5,
        "test_rouge_l": 0.5,
        "test_chrf": (1 + 0.125) / 2,
        "general_loss": general.loss_nats,
        "initial_general_loss": general_before.loss_nats,
        "forgetting": general.loss_nats - general_before.loss_nats,
    }
    read = registered.answers(run.id)
    losses = [answer.loss_nats for answer in read]
    assert losses == test.example_loss_nats.tolist()
    assert [WrittenAnswer(**{k: v for k, v in vars(a).items() if k != "loss_nats"}) for a in read] == list(
        answered.answers
    )
    np.testing.assert_array_equal(row.example_loss_nats, test.example_loss_nats, strict=True)
    np.testing.assert_array_equal(row.example_answer_tokens, test.example_answer_tokens, strict=True)


def test_every_field_of_steps_and_evaluations_is_stored(registered, records):
    registered.write(records)
    assert stored(registered, MEASUREMENTS) == [vars(step) for step in of_kind(records, StepDone)]
    evaluations = {(e.split, e.step): e for e in of_kind(records, Evaluated)}
    for row in stored(registered, EVALUATIONS):
        assert all(getattr(evaluations[row["split"], row["step"]], name) == value for name, value in row.items())
    arrays = stored(registered, EXAMPLE_LOSSES)
    assert len(arrays) == 3 * len(evaluations)
    for row in arrays:
        original = getattr(evaluations[row["split"], row["step"]], row["name"])
        np.testing.assert_array_equal(decode_array(row["dtype"], row["shape"], row["data"]), original, strict=True)


def test_traces_revisions_and_the_outcome_read_as_they_were_written(registered, runs):
    run = next(run for run, _ in runs if run.arm.strategy == "linear_decay")
    records = run_records(run)
    registered.write(records)
    row = registered.run(run.id)
    (audited,) = of_kind(records, RunAudited)
    assert row.traces == tuple(of_kind(records, StepTrace))
    assert row.revisions == tuple(of_kind(records, RanksRevised))
    assert [revision.ranks for revision in row.revisions] == [(5, 3), (6, 2)]
    assert row.outcomes == audited.sites
    assert (row.stored_params, row.held_params) == (audited.params, audited.held_params)


def test_a_norm_that_is_not_a_number_stays_so(registered, run, records):
    trace = replace(of_kind(records, StepTrace)[0], update_norms=(math.nan, 0.5))
    registered.write([trace])
    (read,) = registered.run(run.id).traces
    assert math.isnan(read.update_norms[0])
    assert read.update_norms[1] == 0.5


def test_a_run_whose_adapter_is_not_the_planned_one_has_failed(registered, run, records):
    registered.claim([run.id], WORKER)
    registered.write([*records[:-2], RunFailed(run_id=run.id, cause="q_proj: planned rank 4, stored 5")], WORKER)
    row = registered.run(run.id)
    assert (row.status, row.error) == ("failed", "q_proj: planned rank 4, stored 5")
    assert row.outcomes == ()
    assert run.id in registered.pending_runs("sample")


def test_a_new_attempt_drops_what_an_earlier_one_left(registered, runs):
    run = next(run for run, _ in runs if run.arm.strategy == "linear_decay")
    records = run_records(run)
    registered.write(records)
    registered.write(records[:1])
    row = registered.run(run.id)
    assert (row.outcomes, row.revisions, row.stored_params) == ((), (), None)


def test_writing_twice_stores_once(registered, run, records):
    registered.claim([run.id], WORKER)
    registered.write(records, WORKER)
    once, row = num_rows(registered), registered.run(run.id)
    registered.write(records + records, WORKER)
    assert num_rows(registered) == once
    again = registered.run(run.id)
    assert replace(again, example_loss_nats=None, example_answer_tokens=None) == replace(
        row, example_loss_nats=None, example_answer_tokens=None
    )


def test_a_later_attempt_replaces_an_earlier_one(registered, run, records):
    first, *_ = of_kind(records, StepDone)
    registered.write(records[:-1])
    registered.write([replace(first, loss_nats=9.0), *diverged_records(run, step=3)[3:]])
    row = registered.run(run.id)
    assert [point.step for point in row.training_curve] == [1, 2, 3]
    assert {trace.step for trace in row.traces} == {1, 2, 3}
    assert row.training_curve[0].value == 9.0
    assert [point.step for point in row.validation_curve] == [0]


def test_a_diverged_run_has_its_cause_and_no_final_scores(registered, run):
    registered.write(diverged_records(run, step=5))
    row = registered.run(run.id)
    assert (row.status, row.error, row.steps) == ("diverged", "step 5: the loss is not a number", 5)
    assert set(row.scores) == {"initial_validation_loss"}
    assert math.isnan(row.training_curve[-1].value)
    assert row.example_loss_nats is None


def test_an_unfinished_run_has_no_final_scores(registered, run, records):
    registered.write(records[:-1])
    row = registered.run(run.id)
    assert set(row.scores) == {"initial_validation_loss", "initial_general_loss"}
    assert row.example_loss_nats is None
    assert len(row.training_curve) == 8


def test_a_run_that_diverged_and_then_finishes_has_no_cause_left(registered, run, records):
    registered.write(diverged_records(run)[:-1])
    registered.write(records)
    assert registered.run(run.id).error is None
    assert {row["diverged_cause"] for row in stored(registered, RUNS)} == {None}


def test_a_worker_that_lost_its_claim_writes_nothing(registered, runs, records):
    ids = [records[0].run_id, runs[0][0].id]
    registered.claim(ids, WORKER)
    registered.claim(ids[:1], "machine:2:0", stale_after_s=-1)
    with pytest.raises(LedgerError, match=rf"machine:1:0 no longer owns {ids[0]} \(machine:2:0 has it\)"):
        registered.write([*run_records(runs[0][0]), *records], WORKER)
    assert num_rows(registered) == [0] * 7
    assert set(registered.run_status(ids).values()) == {"running"}


def test_records_of_unregistered_runs_are_refused(registered, records):
    with pytest.raises(LedgerError, match="runs f00 are not registered"):
        registered.write([*records, replace(records[2], run_id="f00")])
    assert num_rows(registered) == [0] * 7


def test_adapters_and_nothing_are_nothing_to_write(registered, run):
    registered.write([])
    registered.write([AdapterTrained(run_id=run.id, tensors={})])
    assert num_rows(registered) == [0] * 7


def test_writing_is_a_sign_of_life(registered, run, records):
    registered.claim([run.id], WORKER)
    (before,) = [row["heartbeat_at"] for row in stored(registered, RUNS) if row["id"] == run.id]
    registered.write(records[:3], WORKER)
    (after,) = [row["heartbeat_at"] for row in stored(registered, RUNS) if row["id"] == run.id]
    assert after > before


def test_a_hundred_thousand_steps_are_written_and_read_in_seconds(registered, run, records):
    first, *_ = of_kind(records, StepDone)
    steps = [replace(first, step=step, loss_nats=1 / step) for step in range(1, 100_001)]
    began = time.process_time()
    registered.write(steps)
    curve = registered.run(run.id).training_curve
    assert time.process_time() - began < 10
    assert (len(curve), curve[-1].value) == (100_000, 1e-5)


def test_details_can_be_left_out(registered, run, records):
    registered.write(records)
    row = next(r for r in registered.study_results("sample", with_details=False).runs if r.id == run.id)
    assert row.scores == registered.run(run.id).scores
    assert (row.sites, row.training_curve, row.example_loss_nats) == ((), (), None)
    assert (row.outcomes, row.revisions, row.traces) == ((), (), ())


def test_a_full_disk_loses_nothing_and_keeps_nothing_half_written(tmp_path, study, runs, run, records):
    with open_ledger(str(tmp_path / "ledger.db")) as ledger:
        ledger.register_study(study, runs)
        ledger.write(run_records(runs[0][0]))
        before = num_rows(ledger)
        engine = ledger._engine
        engine.dispose()

        @event.listens_for(engine, "connect")
        def limit_size(connection, _record):
            num_pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {num_pages + 5}")

        first, *_ = of_kind(records, StepDone)
        many = [replace(first, step=step) for step in range(1, 20_000)]
        with pytest.raises(LedgerError, match=r"ledger\.db: database or disk is full: .* make room"):
            ledger.write([*many, *records])
        assert num_rows(ledger) == before
        assert ledger.run(run.id).status == "pending"
        engine.dispose()
        event.remove(engine, "connect", limit_size)
        ledger.write([*many, *records])
        assert ledger.run(run.id).status == "finished"
