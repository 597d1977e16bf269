"""A study shared by several processes: the same losses, whoever dies, and nobody left behind after a stop."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from rankwise.cli.main import app
from rankwise.errors import ModelError, RunFailedError
from rankwise.execution.observer import Observer
from rankwise.execution.run_study import run_study
from rankwise.execution.study_options import StudyOptions
from rankwise.execution.workers import run_with_workers
from rankwise.ledger import open_ledger
from rankwise.ledger.results import StudyResults
from rankwise.records import Record, StepDone
from rankwise.study import parse_study
from rankwise.study.config import Study

STUDY = """
name: shared
hypothesis: Who trains a run does not matter.
base: {{model: {folder}, dtype: float32}}
data: {{source: skills, max_tokens: 128, train: 8, validation: 4, test: 4}}
budget: {{rank: 2}}
train: {{epochs: {epochs}, batch_size: 2, learning_rates: [1.0e-3]}}
arms: [uniform, linear_decay]
seeds: 2
"""
WAIT_S = 240.0
"""Processes start slowly on a machine that does much else."""


class Watcher(Observer):
    """Keeps what it is told, and may do something when a pack starts."""

    def __init__(self, on_pack: Callable[[int], None] = lambda _: None) -> None:
        self.phases: list[str] = []
        self.packs: list[list[str]] = []
        self.steps: Counter[str] = Counter()
        self.notes: list[str] = []
        self._on_pack = on_pack

    def phase(self, name: str, num_runs: int, num_done: int, num_steps: int) -> None:
        self.phases.append(name)

    def pack(self, run_ids: Sequence[str], labels: Sequence[str], num_steps: int, predicted_bytes: int) -> None:
        self.packs.append(list(run_ids))
        self._on_pack(len(self.packs))

    def records(self, records: Sequence[Record]) -> None:
        self.steps.update(record.run_id for record in records if isinstance(record, StepDone))

    def note(self, text: str) -> None:
        self.notes.append(text)


def losses(results: StudyResults) -> dict[str, float]:
    return {run.id: run.scores["test_loss"] for run in results.runs}


def share(study: Study, folder: Path, watcher: Watcher, num_workers: int = 2) -> StudyResults:
    options = StudyOptions(out=folder)
    return run_with_workers(study, str(folder / "rankwise.db"), options, num_workers=num_workers, observer=watcher)


def kill(process: multiprocessing.process.BaseProcess) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def study(small_model: Path) -> Study:
    return parse_study(STUDY.format(folder=small_model, epochs=4), origin="shared.yaml")


@pytest.fixture(scope="module")
def alone(study: Study, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    folder = tmp_path_factory.mktemp("alone")
    with open_ledger(str(folder / "rankwise.db")) as ledger:
        return losses(run_study(study, ledger, StudyOptions(out=folder)))


def test_two_workers_find_the_losses_that_one_finds(study: Study, alone: dict[str, float], tmp_path: Path) -> None:
    watcher = Watcher()
    results = share(study, tmp_path, watcher)
    assert losses(results) == pytest.approx(alone, abs=1e-6)
    assert {run.status for run in results.runs} == {"finished"}
    assert watcher.steps == dict.fromkeys(alone, 16), "each run was trained once"
    assert max(map(len, watcher.packs)) <= 2, "nobody took more than a share"
    assert watcher.phases == ["tuning", "report"], "two workers, one display"
    assert {path.name for path in (tmp_path / "adapters").iterdir()} == set(alone)


def test_the_runs_of_a_killed_worker_are_taken_over(study: Study, alone: dict[str, float], tmp_path: Path) -> None:
    def kill_one(num_packs: int) -> None:
        if num_packs == 1:
            kill(multiprocessing.active_children()[0])

    watcher = Watcher(kill_one)
    results = share(study, tmp_path, watcher)
    assert losses(results) == pytest.approx(alone, abs=1e-6)
    assert watcher.notes == [watcher.notes[0]]
    assert "died (signal 9); 1 go on with its runs" in watcher.notes[0]


def test_without_any_worker_left_the_study_says_so(study: Study, tmp_path: Path) -> None:
    def kill_all(_: int) -> None:
        for process in multiprocessing.active_children():
            kill(process)

    with pytest.raises(RunFailedError, match="all 2 workers died"):
        share(study, tmp_path, Watcher(kill_all))


def test_an_error_of_the_workers_arrives_as_it_is(small_model: Path, tmp_path: Path) -> None:
    broken = parse_study(STUDY.format(folder=tmp_path / "nothing", epochs=1), origin="broken.yaml")
    with pytest.raises(ModelError, match="there is no folder"):
        share(broken, tmp_path, Watcher())
    assert not multiprocessing.active_children()


@pytest.fixture
def command(small_model: Path, tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """`rankwise study --workers 2` on a study that would take minutes, as a process group of its own."""
    (tmp_path / "long.yaml").write_text(STUDY.format(folder=small_model, epochs=2000))
    words = ["-m", "rankwise", "study", "long.yaml", "--out", "out", "--ledger", "rankwise.db", "--workers", "2"]
    process = subprocess.Popen(
        [sys.executable, *words], cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    yield process
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # whoever is left after a test that failed
    process.communicate()


def wait_for_packs(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    """The workers, once both of them train."""
    assert process.stderr is not None
    num_packs, seen = 0, []
    while num_packs < 2:
        line = process.stderr.readline()
        assert line, "".join(seen)
        seen.append(line)
        num_packs += "side by side" in line
    return [child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(child.cmdline())]


def statuses(folder: Path) -> set[str]:
    with open_ledger(str(folder / "rankwise.db")) as ledger:
        return {run.status for run in ledger.study_results("shared", with_details=False).runs}


@pytest.mark.parametrize("how", ["ctrl-c", "sigterm"])
def test_a_stop_ends_all_workers_with_their_checkpoints_written(
    how: str, command: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    workers = wait_for_packs(command)
    assert len(workers) == 2
    if how == "ctrl-c":
        os.killpg(command.pid, signal.SIGINT)  # a terminal sends it to everybody
    else:
        command.send_signal(signal.SIGTERM)
    _, errors = command.communicate(timeout=WAIT_S)
    assert command.returncode == 130, errors
    assert "the same command goes on from here" in errors
    assert "Traceback" not in errors
    assert not any(worker.is_running() for worker in workers)
    assert len(list((tmp_path / "out" / "checkpoints").glob("*.checkpoint"))) == 2
    assert statuses(tmp_path) == {"pending"}


def test_workers_whose_parent_was_killed_stop_by_themselves(command: "subprocess.Popen[str]", tmp_path: Path) -> None:
    workers = wait_for_packs(command)
    command.kill()
    command.wait()
    _, alive = psutil.wait_procs(workers, timeout=WAIT_S)
    assert not alive
    until = time.monotonic() + WAIT_S
    while statuses(tmp_path) != {"pending"}:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert len(list((tmp_path / "out" / "checkpoints").glob("*.checkpoint"))) == 2


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("ray", ["not available yet", "--workers 2", "PostgreSQL"]),
        ("0", ["'0'", "from 1"]),
        ("two", ["'two'", "from 1"]),
    ],
)
def test_other_workers_are_refused_and_nothing_is_written(
    value: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["study", "--workers", value])
    assert done.exit_code == 2
    assert all(word in done.stderr for word in words)
    assert not list(tmp_path.iterdir())
