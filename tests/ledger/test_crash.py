"""Several processes on one ledger, and processes that are killed: nothing is owned twice, lost or half-written."""

import os
import signal
import subprocess
import sys

import pytest

from rankwise.ledger import open_ledger

CLAIMER = """
import sys
from rankwise.ledger import open_ledger, worker_name
from rankwise.testing.sample_ledger import sample_runs, sample_study

sys.stdin.readline()  # all start together
worker, mine = worker_name(), []
with open_ledger(sys.argv[1]) as ledger:
    ledger.register_study(sample_study(), sample_runs(sample_study()))
    while pending := ledger.pending_runs("sample"):
        mine += ledger.claim(pending[:2], worker)
print(*mine)
sys.stdout.flush()
sys.stdin.readline()  # a dead worker would lose its claims
"""

WRITER = """
import sys
from itertools import count
from rankwise.ledger import open_ledger
from rankwise.records import StepDone

run_id, size = sys.argv[2], 500
with open_ledger(sys.argv[1]) as ledger:
    for batch in count():
        steps = range(batch * size + 1, (batch + 1) * size + 1)
        fields = dict(run_id=run_id, num_steps=1, loss_nats=1.0, grad_norm=1.0, learning_rate=1.0, num_tokens=1)
        ledger.write([StepDone(step=step, **fields) for step in steps])
        print(steps[-1], flush=True)
"""


def start(script, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_several_processes_make_one_ledger_and_own_each_run_once(url, runs):
    processes = [start(CLAIMER, url) for _ in range(4)]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    owned = [process.stdout.readline().split() for process in processes]
    for process in processes:
        process.communicate("done\n")
    assert [process.returncode for process in processes] == [0] * 4
    assert sorted(run_id for ids in owned for run_id in ids) == sorted(run.id for run, _ in runs)


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")
def test_a_killed_writer_loses_nothing_committed_and_leaves_nothing_half_written(url, study, runs):
    run_id = runs[0][0].id
    with open_ledger(url) as ledger:
        ledger.register_study(study, runs)
    process = start(WRITER, url, run_id)
    acknowledged = [int(process.stdout.readline()) for _ in range(3)][-1]
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate()
    acknowledged = max([acknowledged, *map(int, rest.split())])
    with open_ledger(url) as ledger:
        steps = [point.step for point in ledger.run(run_id).training_curve]
        assert steps == list(range(1, len(steps) + 1))
        assert len(steps) % 500 == 0
        assert len(steps) >= acknowledged
        assert ledger.claim([run_id], "machine:1:0") == [run_id]


def test_the_runs_of_a_killed_worker_are_free_at_once(url, runs):
    process = start(CLAIMER, url)
    process.stdin.write("go\n")
    process.stdin.flush()
    owned = process.stdout.readline().split()
    with open_ledger(url) as ledger:
        assert ledger.pending_runs("sample") == []
        process.kill()
        process.communicate()
        assert ledger.pending_runs("sample") == sorted(owned)
        assert ledger.claim(owned, "machine:1:0") == owned
