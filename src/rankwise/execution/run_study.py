"""One study from plan to finished ledger: tune, choose, train, all resumable at any point."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from rankwise.errors import AdapterError, AuditError, LedgerError, RunFailedError
from rankwise.execution.checkpoints import CheckpointFolder
from rankwise.execution.claims import heartbeats
from rankwise.execution.environment import describe_environment
from rankwise.execution.finished import gather_evidence, keep_fingerprints
from rankwise.execution.observer import Observer
from rankwise.execution.packing import SizedRun, cut_packs, estimate_memory, micro_tokens_of
from rankwise.execution.sizing import available_bytes, size_runs
from rankwise.execution.tuning import choose_learning_rates
from rankwise.execution.workbench import Workbench
from rankwise.ledger import Ledger, worker_name
from rankwise.ledger.results import StudyResults
from rankwise.lora.peft_folder import write_peft_folder
from rankwise.models.host_memory import keep_freed_memory
from rankwise.packing.packs import DEFAULT_MAX_SLOTS, Pack, halve
from rankwise.records import AdapterTrained, Record, RunFailed
from rankwise.study.config import Study
from rankwise.study.plan import PlannedRun, report_runs, tuning_runs, unique
from rankwise.training.engine import AllocatedRun, EngineOptions, train_pack

POLL_S = 2.0
"""How often runs that another worker holds are looked at."""


class StudyStopped(Exception):  # noqa: N818 - not an error: someone asked for it
    """The study was asked to stop; checkpoints are written and the same command goes on."""


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """How a study is run on this machine; nothing here changes a result beyond rounding."""

    out: Path
    command: str = "rankwise study"
    max_slots: int = DEFAULT_MAX_SLOTS
    memory_bytes: int | None = None
    """Limit of one pack; None: what is free now, less a reserve."""
    num_workers: int = 1
    """How many processes share the study; none takes more than its share of the runs that are left."""
    engine: EngineOptions = field(default_factory=EngineOptions)


def run_study(
    study: Study,
    ledger: Ledger,
    options: StudyOptions,
    *,
    observer: Observer | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> StudyResults:
    """Train what is missing of `study` and return all that the ledger then holds about it.

    Raises:
        StudyStopped: `should_stop` answered True; everything so far is kept.
        RunFailedError: at least one run failed for a reason other than diverging; the others are finished.
    """
    keep_freed_memory()
    return _StudyRun(study, ledger, options, Workbench(), observer or Observer(), should_stop).run()


def train_phases(
    study: Study,
    phases: Sequence[tuple[str, Sequence[PlannedRun]]],
    ledger: Ledger,
    options: StudyOptions,
    *,
    bench: Workbench,
    observer: Observer | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> StudyResults:
    """Train the runs of each named phase, in that order, and return all that the ledger then holds about `study`.

    For a caller that decides for itself which runs a question needs: nothing is tuned and nothing chosen here. Several
    studies may share one folder, so checkpoints of packs that are not of this one stay where they are.

    Raises:
        StudyStopped: `should_stop` answered True; everything so far is kept.
        RunFailedError: at least one run failed for a reason other than diverging; all others, of every phase, are
            finished.
    """
    keep_freed_memory()
    return _StudyRun(study, ledger, options, bench, observer or Observer(), should_stop).run_phases(phases)


class _StudyRun:
    def __init__(
        self,
        study: Study,
        ledger: Ledger,
        options: StudyOptions,
        bench: Workbench,
        observer: Observer,
        should_stop: Callable[[], bool],
    ) -> None:
        self.study = study
        self.ledger = ledger
        self.options = options
        self.observer = observer
        self.should_stop = should_stop
        self.bench = bench
        self.checkpoints = CheckpointFolder(options.out / "checkpoints")
        self.worker = worker_name()
        self.failed: dict[str, str] = {}

    def run(self) -> StudyResults:
        evidence = gather_evidence(self.study)  # before what it stands for is read
        fingerprints = self.bench.fingerprints(self.study)
        tuning = tuning_runs(self.study, fingerprints)
        self._register(tuning)
        self._train("tuning", tuning)
        chosen = choose_learning_rates(self.study, self.ledger.study_results(self.study.name))
        self.ledger.set_chosen_learning_rates(self.study.name, chosen)
        reported = report_runs(self.study, chosen, fingerprints)
        self._register(tuning + reported)
        self._train("report", reported)
        self.checkpoints.clear()
        if evidence is not None and evidence == gather_evidence(self.study):
            keep_fingerprints(self.options.out, evidence, fingerprints)
        return self.ledger.study_results(self.study.name)

    def run_phases(self, phases: Sequence[tuple[str, Sequence[PlannedRun]]]) -> StudyResults:
        self._register([plan for _, planned in phases for plan in planned])
        failure: RunFailedError | None = None
        for name, planned in phases:
            try:
                self._train(name, planned)
            except RunFailedError as error:
                failure = failure or error
        if failure:
            raise failure
        return self.ledger.study_results(self.study.name)

    def _register(self, planned: Sequence[PlannedRun]) -> None:
        name = self.study.name
        self.ledger.register_study(self.study, [(plan.run, plan.purpose) for plan in planned])
        device = self.bench.base(self.study.arms[0].base).device
        self.ledger.set_environment(name, describe_environment(device, self.options.command))
        self.ledger.set_data_summary(name, self._data_summary())

    def _data_summary(self) -> dict[str, Any]:
        """Of the data that all arms share; where they differ, of each arm's under its name."""
        summaries = {arm.name: self.bench.data(arm).summary.to_dict() for arm in self.study.arms}
        first = next(iter(summaries.values()))
        return first if all(summary == first for summary in summaries.values()) else summaries

    def _train(self, phase: str, planned: Sequence[PlannedRun]) -> None:
        """Train until every run of `planned` is finished or diverged, here or by another worker."""
        sized = {run.planned.run.id: run for run in size_runs(unique(planned), self.bench, self.options.engine)}
        left = self._left(sized)
        self.observer.phase(phase, len(sized), len(sized) - len(left), sum(sized[i].num_steps for i in left))
        while left := self._left(sized):
            if self.should_stop():
                raise StudyStopped
            pending = left.intersection(self.ledger.pending_runs(self.study.name))
            if not pending:
                time.sleep(POLL_S)
                continue
            in_order = [run for run_id, run in sized.items() if run_id in pending]
            self._train_next(in_order, share=math.ceil(len(left) / self.options.num_workers))
        failed = {run_id: error for run_id, error in self.failed.items() if run_id in sized}
        if failed:
            raise RunFailedError(_describe_failures(failed, sized))

    def _left(self, sized: dict[str, SizedRun]) -> set[str]:
        done = ("finished", "diverged")
        status = self.ledger.run_status(list(sized))
        return {run_id for run_id in sized if status.get(run_id) not in done and run_id not in self.failed}

    def _train_next(self, pending: Sequence[SizedRun], share: int) -> None:
        """Claim one pack of at most `share` runs and train it: one with a checkpoint first, else of a fresh plan."""
        limit_bytes = self.options.memory_bytes or available_bytes()
        max_slots = min(self.options.max_slots, share)
        pack = self._resumable(pending) or cut_packs(pending, limit_bytes=limit_bytes, max_slots=max_slots)[0]
        ids = [run.planned.run.id for run in pack.items]
        owned = self.ledger.claim(ids, self.worker)
        if len(owned) < len(ids):  # another worker was faster; what is left is planned anew
            self.ledger.release(owned, self.worker)
            return
        try:
            with heartbeats(self.ledger, ids, self.worker):
                self._train_pack(pack)
        except BaseException:
            with suppress(LedgerError):  # the first error is the one to tell; a claim left behind goes stale
                self.ledger.release(ids, self.worker)
            raise

    def _resumable(self, pending: Sequence[SizedRun]) -> Pack[SizedRun] | None:
        by_id = {run.planned.run.id: run for run in pending}
        for run_ids in self.checkpoints.packs():
            if all(run_id in by_id for run_id in run_ids):
                items = tuple(by_id[run_id] for run_id in run_ids)
                return Pack(items, estimate_memory(items).total_bytes)
        return None

    def _train_pack(self, pack: Pack[SizedRun]) -> None:
        """Train one pack; its halves, one after the other, when memory runs out or a run is not what was planned.

        So only runs that fail by themselves are failed, and their neighbours go on.
        """
        try:
            self._train_once(pack)
        except (StudyStopped, LedgerError, AdapterError):
            raise  # nothing to do with these runs: asked to stop, or there is nowhere to keep a result
        except Exception as error:
            if len(pack.items) > 1 and _is_out_of_memory(error):
                self._train_halves(pack, "out of memory")
            elif len(pack.items) > 1 and isinstance(error, AuditError):
                self._train_halves(pack, f"not what was planned ({error})")
            else:
                self._fail(pack, error)

    def _train_halves(self, pack: Pack[SizedRun], why: str) -> None:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        parts = halve(pack, lambda items: estimate_memory(items).total_bytes)
        self.observer.note(f"{why}, with {len(pack.items)} runs side by side; going on with {len(parts[0].items)}")
        for part in parts:
            self._train_pack(part)

    def _train_once(self, pack: Pack[SizedRun]) -> None:
        allocator = self.bench.allocator(pack.items[0].planned.run.arm.base)
        runs = allocator.allocate_all((item.planned.run, item.data) for item in pack.items)
        ids = [run.run.id for run in runs]
        base = self.bench.base(runs[0].run.arm.base)
        labels = [f"{r.run.arm.name} lr {r.run.learning_rate:g} seed {r.run.seed}" for r in runs]
        steps = sum(item.num_steps for item in pack.items)
        self.observer.pack(ids, labels, steps, pack.predicted_bytes)
        engine = replace(
            self.options.engine, micro_tokens=micro_tokens_of(pack.items), predicted_memory_bytes=pack.predicted_bytes
        )
        path = self.checkpoints.path(ids)
        for records in train_pack(base, runs, options=engine, checkpoint=path, should_stop=self.should_stop):
            self._store(records, runs)
        if self.should_stop() and self._left({item.planned.run.id: item for item in pack.items}):
            raise StudyStopped
        path.unlink(missing_ok=True)

    def _store(self, records: Sequence[Record], runs: Sequence[AllocatedRun]) -> None:
        """Adapters first: a run that the ledger calls finished has its adapter on disk."""
        by_id = {run.run.id: run for run in runs}
        for record in records:
            if isinstance(record, AdapterTrained) and by_id[record.run_id].run.scores_test:
                run = by_id[record.run_id]
                folder = self.options.out / "adapters" / record.run_id
                base_name = run.run.arm.base.model
                stored = run.rank_map.with_ranks({name: len(down) for name, (down, _) in record.tensors.items()})
                write_peft_folder(folder, stored, record.tensors, base_name=base_name, dropout=run.run.arm.dropout)
        self.ledger.write(records, self.worker)
        for record in records:
            if isinstance(record, RunFailed):
                self.failed[record.run_id] = record.cause
                self.observer.note(f"run {record.run_id} failed: {record.cause}")
        self.observer.records(records)

    def _fail(self, pack: Pack[SizedRun], error: Exception) -> None:
        for item in pack.items:
            run_id = item.planned.run.id
            self.failed[run_id] = f"{type(error).__name__}: {error}"
            self.ledger.mark_failed(run_id, self.failed[run_id])
        self.observer.note(f"{len(pack.items)} runs failed: {type(error).__name__}: {error}")


def _describe_failures(failed: dict[str, str], sized: dict[str, SizedRun]) -> str:
    run_id, error = next(iter(failed.items()))
    arm = sized[run_id].planned.run.arm.name
    return (
        f"{len(failed)} of {len(sized)} runs failed; the first is {run_id} (arm {arm}): {error}. The finished ones are "
        "kept; `rankwise runs list` names them all, and the same command tries the failed ones again."
    )


def _is_out_of_memory(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in text
