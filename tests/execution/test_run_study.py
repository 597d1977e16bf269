"""A study from plan to finished ledger, stopped, killed, starved of memory and shared between processes."""

import os
import signal
import subprocess
import sys
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM

from rankwise.errors import AuditError, LedgerError, RunFailedError
from rankwise.execution import duration
from rankwise.execution import train_runs as module
from rankwise.execution.observer import Observer
from rankwise.execution.run_study import run_study
from rankwise.execution.study_options import StudyOptions, StudyStopped
from rankwise.ledger import open_ledger
from rankwise.ledger.results import RunRow, StudyResults
from rankwise.lora.pack import AdapterPack
from rankwise.records import Record, StepDone
from rankwise.study import resolved_json
from rankwise.study.config import Study
from rankwise.training.engine import EngineOptions, train_pack

NUM_RUNS = 4 + 6


class Watcher(Observer):
    """Counts what was trained, and can stop the study after so many lists of records."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.steps: Counter[str] = Counter()
        self.notes: list[str] = []
        self.pack_sizes: list[int] = []
        self.predicted: list[int] = []
        self._left = stop_after

    def pack(self, run_ids: Sequence[str], labels: Sequence[str], num_steps: int, predicted_bytes: int) -> None:
        self.pack_sizes.append(len(run_ids))
        self.predicted.append(predicted_bytes)

    def records(self, records: Sequence[Record]) -> None:
        self.steps.update(r.run_id for r in records if isinstance(r, StepDone))
        if self._left is not None:
            self._left -= 1

    def note(self, text: str) -> None:
        self.notes.append(text)

    def should_stop(self) -> bool:
        return self._left is not None and self._left <= 0


def run(study: Study, folder: Path, watcher: Watcher | None = None, **options: Any) -> StudyResults:
    watcher = watcher or Watcher()
    with open_ledger(f"sqlite:///{folder}/rankwise.db") as ledger:
        return run_study(
            study, ledger, StudyOptions(out=folder, **options), observer=watcher, should_stop=watcher.should_stop
        )


def reported_losses(results: StudyResults) -> dict[str, float]:
    return {row.id: row.scores["test_loss"] for row in results.runs if row.purpose == "report"}


@pytest.fixture(scope="module")
def finished(small_study: Study, tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyResults, Path]:
    folder = tmp_path_factory.mktemp("finished")
    return run(small_study, folder), folder


def test_every_planned_run_is_trained_and_scored(finished: tuple[StudyResults, Path], small_study: Study) -> None:
    results, _ = finished
    assert len(results.runs) == NUM_RUNS
    assert {row.status for row in results.runs} == {"finished"}
    assert Counter(row.purpose for row in results.runs) == {"tuning": 4, "report": 6}
    for row in results.runs:
        assert row.params == row.budget_params
        assert ("test_loss" in row.scores) == (row.purpose == "report")
        assert row.scores["initial_validation_loss"] > 0
        assert len(row.training_curve) == 4
    assert results.environment["torch"]
    assert results.data_summary["splits"]["test"]["num_examples"] == 6


def test_the_learning_rate_is_the_best_on_validation_loss_of_the_tuning_seeds(
    finished: tuple[StudyResults, Path],
) -> None:
    results, _ = finished
    for arm in ("uniform", "linear_decay"):
        tuned = {
            r.learning_rate: r.scores["validation_loss"] for r in results.runs if (r.arm, r.purpose) == (arm, "tuning")
        }
        assert results.chosen_learning_rates[arm] == min(tuned, key=tuned.__getitem__)
        assert {r.learning_rate for r in results.reported(arm)} == {results.chosen_learning_rates[arm]}
    assert results.chosen_learning_rates["empirical"] == 3e-3


def test_the_probe_is_charged_to_the_run_that_needed_it(finished: tuple[StudyResults, Path]) -> None:
    results, _ = finished
    for row in results.runs:
        assert row.probe_wall_s is not None
        assert row.wall_s is not None
        assert (row.probe_wall_s > 0) == (row.arm == "empirical")
        assert row.wall_s > row.probe_wall_s


def test_what_was_predicted_of_a_pack_is_kept_with_its_runs(finished: tuple[StudyResults, Path]) -> None:
    results, _ = finished
    packs: dict[str | None, list[RunRow]] = {}
    for row in results.runs:
        packs.setdefault(row.pack_id, []).append(row)
    assert [len(members) for members in packs.values()] == [members[0].pack_slots for members in packs.values()]
    assert {row.micro_tokens for row in results.runs} == {2048}
    for row in results.runs:
        assert row.predicted_wall_s is not None
        assert row.predicted_wall_s > 0


def test_a_pack_whose_time_cannot_be_predicted_is_trained(
    small_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def calibrate(*_: Any) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(duration, "_kept_calibration", calibrate)
    watcher = Watcher()
    results = run(small_study, tmp_path, watcher)
    assert {(row.status, row.predicted_wall_s) for row in results.runs} == {("finished", None)}
    assert "the time of this pack is not predicted: RuntimeError: no such kernel" in watcher.notes


def test_adapters_of_reported_runs_load_in_peft(finished: tuple[StudyResults, Path], small_model: Path) -> None:
    results, folder = finished
    ids = {row.id for row in results.runs if row.purpose == "report"}
    assert {path.name for path in (folder / "adapters").iterdir()} == ids
    adapter = folder / "adapters" / results.reported("linear_decay")[0].id
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(small_model), adapter)
    stored = sum(p.numel() for name, p in model.named_parameters() if "lora_" in name)
    assert stored == results.reported("linear_decay")[0].params


def test_a_finished_study_trains_nothing_again(finished: tuple[StudyResults, Path], small_study: Study) -> None:
    results, folder = finished
    watcher = Watcher()
    again = run(small_study, folder, watcher)
    assert not watcher.steps
    assert reported_losses(again) == reported_losses(results)
    assert not list(folder.glob("checkpoints/*"))


@pytest.mark.parametrize("stop_after", [1, 4, 9])
def test_a_stopped_study_goes_on_to_the_same_losses(
    stop_after: int, finished: tuple[StudyResults, Path], small_study: Study, tmp_path: Path
) -> None:
    first = Watcher(stop_after)
    with pytest.raises(StudyStopped):
        run(small_study, tmp_path, first)
    second = Watcher()
    resumed = run(small_study, tmp_path, second)
    assert reported_losses(resumed) == reported_losses(finished[0])
    assert sum((first.steps + second.steps).values()) == NUM_RUNS * 4, "no step was trained twice"


KILLED = """
import sys
from pathlib import Path
from rankwise.execution.observer import Observer
from rankwise.execution.run_study import run_study
from rankwise.execution.study_options import StudyOptions
from rankwise.ledger import open_ledger
from rankwise.study import load_resolved
from rankwise.training.engine import EngineOptions

class Loud(Observer):
    def records(self, records):
        print("step", flush=True)

folder = Path(sys.argv[1])
study = load_resolved((folder / "study.json").read_text())
with open_ledger(f"sqlite:///{folder}/rankwise.db") as ledger:
    options = StudyOptions(out=folder, engine=EngineOptions(checkpoint_every_s=0.0))
    run_study(study, ledger, options, observer=Loud())
"""


def start(study: Study, folder: Path) -> "subprocess.Popen[str]":
    (folder / "study.json").write_text(resolved_json(study))
    command = [sys.executable, "-c", KILLED, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONWARNINGS": "default"})


def test_a_killed_study_goes_on_from_its_last_checkpoint_to_the_same_losses(
    finished: tuple[StudyResults, Path], small_study: Study, tmp_path: Path
) -> None:
    process = start(small_study, tmp_path)
    assert process.stdout is not None
    for _ in range(4):  # the evaluation before training and three steps of the first pack
        assert process.stdout.readline() == "step\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    watcher = Watcher()
    resumed = run(small_study, tmp_path, watcher)
    assert reported_losses(resumed) == reported_losses(finished[0])
    assert sum(watcher.steps.values()) < NUM_RUNS * 4, "it did not start from the beginning"
    assert not list(tmp_path.rglob("*.partial"))


def test_two_processes_share_a_study_and_train_each_run_once(
    finished: tuple[StudyResults, Path], small_study: Study, tmp_path: Path
) -> None:
    others = [start(small_study, tmp_path) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in others]
    assert [process.returncode for process in others] == [0, 0], outputs
    watcher = Watcher()
    results = run(small_study, tmp_path, watcher)
    assert not watcher.steps
    assert reported_losses(results) == pytest.approx(reported_losses(finished[0]), abs=1e-6)


def test_out_of_memory_halves_the_pack_and_goes_on(
    finished: tuple[StudyResults, Path], small_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def limited(base: Any, runs: Sequence[Any], **options: Any) -> Iterator[list[Record]]:
        if len(runs) > 2:
            raise MemoryError
        return train_pack(base, runs, **options)

    monkeypatch.setattr(module, "train_pack", limited)
    watcher = Watcher()
    results = run(small_study, tmp_path, watcher)
    assert reported_losses(results) == pytest.approx(reported_losses(finished[0]), abs=1e-6)
    assert any("out of memory" in note for note in watcher.notes)
    by_size = dict(zip(watcher.pack_sizes, watcher.predicted, strict=True))
    assert by_size[4] > by_size[2] > by_size[1] > 0, "each half is predicted anew"
    with open_ledger(f"sqlite:///{tmp_path}/rankwise.db") as ledger:
        kept = {(row.pack_slots, row.predicted_memory_bytes) for row in ledger.study_results("small").runs}
    assert kept <= set(zip(watcher.pack_sizes, watcher.predicted, strict=True)), (
        "and the ledger compares what was used with that"
    )


def test_the_halves_are_trained_without_what_the_failed_pack_held(
    small_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Held:
        """Stands for the tensors of a pack."""

    failed: list[weakref.ref[Held]] = []
    still_held: list[bool] = []

    def limited(base: Any, runs: Sequence[Any], **options: Any) -> Iterator[list[Record]]:
        still_held.append(any(held() is not None for held in failed))
        held = Held()
        if len(runs) > 2:
            failed.append(weakref.ref(held))
            raise MemoryError
        yield from train_pack(base, runs, **options)

    monkeypatch.setattr(module, "train_pack", limited)
    run(small_study, tmp_path)
    assert failed
    assert not any(still_held)


def test_a_failed_run_is_named_and_tried_again_by_the_same_command(
    small_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(base: Any, runs: Sequence[Any], **options: Any) -> Iterator[list[Record]]:
        if any(run.run.arm.name == "linear_decay" for run in runs):
            raise RuntimeError("cosmic ray")
        return train_pack(base, runs, **options)

    monkeypatch.setattr(module, "train_pack", failing)
    with pytest.raises(RunFailedError, match=r"2 of 4 runs failed.*linear_decay.*cosmic ray"):
        run(small_study, tmp_path, max_slots=2)
    with open_ledger(f"sqlite:///{tmp_path}/rankwise.db") as ledger:
        status = Counter(row.status for row in ledger.study_results("small").runs)
    assert status == {"finished": 2, "failed": 2}
    monkeypatch.undo()
    assert {row.status for row in run(small_study, tmp_path).runs} == {"finished"}


def test_a_run_whose_adapter_is_not_the_planned_one_fails_alone(
    small_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(pack: AdapterPack, slot: int) -> dict[str, Any]:
        tensors = honest(pack, slot)
        if pack.plans[slot].seed == 1:
            del tensors[next(iter(tensors))]
        return tensors

    honest = AdapterPack.tensors
    monkeypatch.setattr(AdapterPack, "tensors", damaged)
    watcher = Watcher()
    with pytest.raises(RunFailedError, match=r"3 of 6 runs failed.*q_proj: planned rank 2, 2 components active.* 0 in"):
        run(small_study, tmp_path, watcher)
    with open_ledger(f"sqlite:///{tmp_path}/rankwise.db") as ledger:
        reported = [row for row in ledger.study_results("small").runs if row.purpose == "report"]
    assert {row.seed: row.status for row in reported} == {0: "finished", 1: "failed"}
    assert watcher.pack_sizes == [4, 6], "nothing was trained twice"
    kept = {folder.name for folder in (tmp_path / "adapters").iterdir()}
    assert kept == {row.id for row in reported if row.status == "finished"}
    assert all(len(row.outcomes) == len(row.sites) for row in reported if row.status == "finished")
    monkeypatch.undo()
    assert {row.status for row in run(small_study, tmp_path).runs} == {"finished"}


def test_a_pack_with_a_run_that_is_attached_wrongly_trains_the_others(
    small_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(base: Any, runs: Sequence[Any], **options: Any) -> Iterator[list[Record]]:
        if any(run.run.arm.name == "linear_decay" and run.run.learning_rate == 1e-2 for run in runs):
            raise AuditError("q_proj: planned rank 2, realised rank 3.")
        return train_pack(base, runs, **options)

    monkeypatch.setattr(module, "train_pack", refusing)
    with pytest.raises(RunFailedError, match=r"1 of 4 runs failed.*realised rank 3"):
        run(small_study, tmp_path)
    with open_ledger(f"sqlite:///{tmp_path}/rankwise.db") as ledger:
        status = Counter(row.status for row in ledger.study_results("small").runs)
    assert status == {"finished": 3, "failed": 1}


def test_a_ledger_that_cannot_be_written_stops_the_study_and_loses_nothing(
    small_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rankwise.ledger import Ledger

    written = Ledger.write
    calls = iter(range(100))

    def full(self: Ledger, records: Sequence[Record], worker: str | None = None) -> None:
        if next(calls) == 3:
            raise LedgerError("the disk is full")
        written(self, records, worker)

    monkeypatch.setattr(Ledger, "write", full)
    with pytest.raises(LedgerError, match="disk is full"):
        run(small_study, tmp_path)
    monkeypatch.undo()
    assert {row.status for row in run(small_study, tmp_path).runs} == {"finished"}


def test_max_slots_bounds_every_pack(small_study: Study, tmp_path: Path) -> None:
    watcher = Watcher()
    run(small_study, tmp_path, watcher, max_slots=3, engine=EngineOptions(micro_tokens=512))
    assert max(watcher.pack_sizes) <= 3
    assert sum(watcher.pack_sizes) == NUM_RUNS
