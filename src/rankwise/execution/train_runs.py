"""Runs of a ledger trained until each has ended: claimed, packed for the memory that is free now, trained, stored.

Processes that share a ledger agree through its claims alone. A pack that fails is halved until the runs that fail by
themselves are alone, so that their neighbours go on.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch

from rankwise.errors import AdapterError, AuditError, LedgerError, RunFailedError
from rankwise.execution.checkpoints import CheckpointFolder
from rankwise.execution.claims import heartbeats
from rankwise.execution.duration import DurationPredictor
from rankwise.execution.observer import Observer
from rankwise.execution.packing import SizedRun, cut_packs, estimate_memory, micro_tokens_of
from rankwise.execution.sizing import available_bytes
from rankwise.execution.study_options import StudyOptions, StudyStopped
from rankwise.execution.workbench import Workbench
from rankwise.ledger import Ledger, worker_name
from rankwise.lora.peft_folder import write_peft_folder
from rankwise.packing.packs import Pack, halve
from rankwise.records import AdapterTrained, Record, RunFailed
from rankwise.study.plan import PlannedRun, unique
from rankwise.training.allocated_run import AllocatedRun
from rankwise.training.engine import train_pack

POLL_S = 2.0
"""How often runs that another worker holds are looked at."""


class RunTrainer:
    """One process's share in training the runs of studies."""

    def __init__(
        self,
        study_names: Sequence[str],
        ledger: Ledger,
        options: StudyOptions,
        bench: Workbench,
        observer: Observer,
        should_stop: Callable[[], bool],
    ) -> None:
        """`study_names`: studies of the ledger that the runs belong to."""
        self._study_names = study_names
        self._ledger = ledger
        self._options = options
        self._bench = bench
        self._observer = observer
        self._should_stop = should_stop
        self._predictor = DurationPredictor(bench)
        self.checkpoints = CheckpointFolder(options.out / "checkpoints")
        self._worker = worker_name()
        self._failed: dict[str, str] = {}
        """Run -> what it failed of, here."""
        self.homes: dict[str, list[Path]] = {}
        """Reported run -> the results folders that its adapter goes to."""
        self.solo: set[str] = set()
        """Runs that share their pack with no other."""

    def train(self, phase: str, runs: Sequence[SizedRun]) -> None:
        """Train until every one of `runs` is finished, diverged or failed, here or by another worker."""
        sized: dict[str, SizedRun] = {}
        for run in runs:
            sized.setdefault(run.planned.run.id, run)
        left = self._left(sized)
        self._observer.phase(phase, len(sized), len(sized) - len(left), sum(sized[i].num_steps for i in left))
        while left := self._left(sized):
            if self._should_stop():
                raise StudyStopped
            pending = left & self._free_runs()
            if not pending:
                time.sleep(POLL_S)
                continue
            in_order = [run for run_id, run in sized.items() if run_id in pending]
            self._train_next(in_order, share=math.ceil(len(left) / self._options.num_workers))

    def _free_runs(self) -> set[str]:
        """Runs of any study that nobody works on."""
        return {run_id for name in self._study_names for run_id in self._ledger.pending_runs(name)}

    def raise_failures(self, planned: Sequence[PlannedRun]) -> None:
        failed = {plan.run.id: plan.run.arm.name for plan in planned if plan.run.id in self._failed}
        if failed:
            raise RunFailedError(_describe_failures(failed, self._failed, len(unique(planned))))

    def _left(self, sized: dict[str, SizedRun]) -> set[str]:
        done = ("finished", "diverged")
        status = self._ledger.run_status(list(sized))
        return {run_id for run_id in sized if status.get(run_id) not in done and run_id not in self._failed}

    def _train_next(self, pending: Sequence[SizedRun], share: int) -> None:
        """Claim one pack of at most `share` runs and train it: one with a checkpoint first, else of a fresh plan."""
        pack = self._resumable(pending) or self._next_pack(pending, share)
        ids = [run.planned.run.id for run in pack.items]
        owned = self._ledger.claim(ids, self._worker)
        if len(owned) < len(ids):  # another worker was faster; what is left is planned anew
            self._ledger.release(owned, self._worker)
            return
        try:
            with heartbeats(self._ledger, ids, self._worker):
                self._train_pack(pack)
        except BaseException:
            with suppress(LedgerError):  # the first error is the one to tell; a claim left behind goes stale
                self._ledger.release(ids, self._worker)
            raise

    def _next_pack(self, pending: Sequence[SizedRun], share: int) -> Pack[SizedRun]:
        """Of a fresh plan for the memory that is free now; runs that go alone come first."""
        limit_bytes = self._options.memory_bytes or available_bytes()
        if solo := [run for run in pending if run.planned.run.id in self.solo]:
            return cut_packs(solo, limit_bytes=limit_bytes, max_slots=1)[0]
        return cut_packs(pending, limit_bytes=limit_bytes, max_slots=min(self._options.max_slots, share))[0]

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
        why = None
        try:
            self._train_once(pack)
        except (StudyStopped, LedgerError, AdapterError):
            raise  # nothing to do with these runs: asked to stop, or there is nowhere to keep a result
        except Exception as error:
            if len(pack.items) > 1 and _is_out_of_memory(error):
                why = "out of memory"
            elif len(pack.items) > 1 and isinstance(error, AuditError):
                why = f"not what was planned ({error})"
            else:
                self._fail(pack, error)
        if why is not None:  # only here has the error let go of its traceback, and so of the failed pack's tensors
            self._train_halves(pack, why)

    def _train_halves(self, pack: Pack[SizedRun], why: str) -> None:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        parts = halve(pack, lambda items: estimate_memory(items).total_bytes)
        self._observer.note(f"{why}, with {len(pack.items)} runs side by side; going on with {len(parts[0].items)}")
        for part in parts:
            self._train_pack(part)

    def _train_once(self, pack: Pack[SizedRun]) -> None:
        predicted_s = self._predict_shares_s(pack)
        allocator = self._bench.allocator(pack.items[0].planned.run.arm.base)
        allocated = allocator.allocate_all((item.planned.run, item.data) for item in pack.items)
        runs = [replace(run, predicted_wall_s=share_s) for run, share_s in zip(allocated, predicted_s, strict=True)]
        ids = [run.run.id for run in runs]
        base = self._bench.base(runs[0].run.arm.base)
        labels = [f"{r.run.arm.name} lr {r.run.learning_rate:g} seed {r.run.seed}" for r in runs]
        steps = sum(item.num_steps for item in pack.items)
        self._observer.pack(ids, labels, steps, pack.predicted_bytes)
        engine = replace(
            self._options.engine, micro_tokens=micro_tokens_of(pack.items), predicted_memory_bytes=pack.predicted_bytes
        )
        path = self.checkpoints.path(ids)
        for records in train_pack(base, runs, options=engine, checkpoint=path, should_stop=self._should_stop):
            self._store(records, runs)
        if self._should_stop() and self._left({item.planned.run.id: item for item in pack.items}):
            raise StudyStopped
        path.unlink(missing_ok=True)

    def _predict_shares_s(self, pack: Pack[SizedRun]) -> Sequence[float | None]:
        """Of each run; what could not be calibrated is not predicted, and trained all the same.

        Asked before anything of the pack is loaded, so that passes that are only measured add nothing to its peak.
        """
        try:
            return self._predictor.predict_shares_s(pack.items)
        except Exception as error:
            self._observer.note(f"the time of this pack is not predicted: {type(error).__name__}: {error}")
            return [None] * len(pack.items)

    def _store(self, records: Sequence[Record], runs: Sequence[AllocatedRun]) -> None:
        """Adapters first: a run that the ledger calls finished has its adapter on disk."""
        by_id = {run.run.id: run for run in runs}
        for record in records:
            if isinstance(record, AdapterTrained) and by_id[record.run_id].run.scores_test:
                run = by_id[record.run_id]
                base_name = run.run.arm.base.model
                stored = run.rank_map.with_ranks({name: len(down) for name, (down, _) in record.tensors.items()})
                for home in self.homes.get(record.run_id, [self._options.out]):
                    folder = home / "adapters" / record.run_id
                    write_peft_folder(folder, stored, record.tensors, base_name=base_name, dropout=run.run.arm.dropout)
        self._ledger.write(records, self._worker)
        for record in records:
            if isinstance(record, RunFailed):
                self._failed[record.run_id] = record.cause
                self._observer.note(f"run {record.run_id} failed: {record.cause}")
        self._observer.records(records)

    def _fail(self, pack: Pack[SizedRun], error: Exception) -> None:
        for item in pack.items:
            run_id = item.planned.run.id
            self._failed[run_id] = f"{type(error).__name__}: {error}"
            self._ledger.mark_failed(run_id, self._failed[run_id])
        self._observer.note(f"{len(pack.items)} runs failed: {type(error).__name__}: {error}")


def _describe_failures(failed: Mapping[str, str], errors: Mapping[str, str], num_runs: int) -> str:
    """`failed`: run -> its arm, of `num_runs` runs in the phase."""
    run_id, arm = next(iter(failed.items()))
    return (
        f"{len(failed)} of {num_runs} runs failed; the first is {run_id} (arm {arm}): {errors[run_id]}. The finished "
        "ones are kept; `rankwise runs list` names them all, and the same command tries the failed ones again."
    )


def _is_out_of_memory(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in text
