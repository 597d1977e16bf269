import os
import socket
import subprocess
import sys

import pytest

from rankwise.errors import LedgerError
from rankwise.ledger import worker_name
from rankwise.testing.sample_ledger import run_records

HERE, ELSEWHERE, OTHER = "machine:1:0", "machine:2:0", "machine:3:0"


@pytest.fixture
def ids(registered, runs):
    return sorted(run.id for run, _ in runs)


@pytest.fixture(scope="module")
def dead_pid():
    """The id of a process of this machine that is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_run_belongs_to_the_first_who_claims_it(registered, ids):
    assert registered.claim(ids[:3], HERE) == ids[:3]
    assert registered.claim(ids[2:5][::-1], ELSEWHERE) == [ids[4], ids[3]]
    assert registered.pending_runs("sample") == ids[5:]
    assert registered.run_status(ids[:6]) == dict.fromkeys(ids[:5], "running") | {ids[5]: "pending"}


def test_claiming_ones_own_run_again_keeps_it(registered, ids):
    registered.claim(ids[:2], HERE)
    assert registered.claim(ids[:2], HERE) == ids[:2]


def test_a_claim_without_heartbeats_is_taken_over(registered, ids):
    registered.claim(ids[:2], HERE)
    assert registered.pending_runs("sample", stale_after_s=-1) == ids
    assert registered.claim(ids[:1], ELSEWHERE, stale_after_s=-1) == ids[:1]
    assert registered.heartbeat(ids[:2], HERE) == ids[1:2]
    assert registered.heartbeat(ids[:2], ELSEWHERE) == ids[:1]


def test_the_claim_of_a_dead_process_of_this_machine_is_taken_over_at_once(registered, ids, dead_pid):
    dead = f"{socket.gethostname()}:{dead_pid}:0"
    registered.claim(ids[:1], dead)
    assert registered.pending_runs("sample") == ids
    assert registered.claim(ids[:1], HERE) == ids[:1]


def test_the_claim_of_a_living_process_or_of_another_machine_is_not(registered, ids, dead_pid):
    registered.claim(ids[:1], worker_name())
    registered.claim(ids[1:2], f"elsewhere:{dead_pid}:0")
    assert registered.claim(ids[:2], OTHER) == []


def test_a_worker_is_named_by_host_and_process():
    host, process, _ = worker_name().rsplit(":", 2)
    assert (host, int(process)) == (socket.gethostname(), os.getpid())
    assert worker_name() != worker_name()


def test_released_runs_are_pending_again_but_not_those_of_others(registered, ids):
    registered.claim(ids[:1], HERE)
    registered.claim(ids[1:2], ELSEWHERE)
    registered.release(ids[:2], HERE)
    assert registered.pending_runs("sample") == [ids[0], *ids[2:]]


def test_finished_runs_are_neither_pending_nor_claimed_nor_released(registered, runs, ids):
    run = runs[0][0]
    registered.claim([run.id], HERE)
    registered.write(run_records(run), HERE)
    registered.release([run.id], HERE)
    assert run.id not in registered.pending_runs("sample", stale_after_s=-1)
    assert registered.claim([run.id], ELSEWHERE, stale_after_s=-1) == []
    assert registered.run_status([run.id]) == {run.id: "finished"}


def test_a_failed_run_says_why_and_may_be_tried_again(registered, ids):
    registered.claim(ids[:1], HERE)
    registered.mark_failed(ids[0], "MemoryError: 8 GiB wanted")
    assert registered.run_status(ids[:1]) == {ids[0]: "failed"}
    assert registered.run(ids[0]).error == "MemoryError: 8 GiB wanted"
    assert ids[0] in registered.pending_runs("sample")
    assert registered.claim(ids[:1], ELSEWHERE) == ids[:1]
    assert registered.run(ids[0]).error is None


def test_what_finished_cannot_fail_later(registered, runs):
    run = runs[0][0]
    registered.write(run_records(run))
    registered.mark_failed(run.id, "too late")
    assert registered.run(run.id).status == "finished"


@pytest.mark.parametrize(
    "call", [lambda ledger: ledger.mark_failed("f00", "x"), lambda ledger: ledger.run_status(["f00"])]
)
def test_unregistered_runs_are_refused(registered, call):
    with pytest.raises(LedgerError, match="runs f00 are not registered"):
        call(registered)
