"""Studies from plan to finished ledger: tune, choose, train, all resumable at any point.

Several studies of a suite share every phase: a run that two of them need is trained once, and runs of different
studies over the same base model ride in one pack.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from rankwise.errors import AdapterError, AuditError, LedgerError, RankwiseError, RunFailedError, StudyError
from rankwise.execution.benchmarking import check_benchmarks, run_benchmarks
from rankwise.execution.checkpoints import CheckpointFolder
from rankwise.execution.claims import heartbeats
from rankwise.execution.duration import DurationPredictor
from rankwise.execution.environment import describe_environment
from rankwise.execution.finished import gather_evidence, keep_fingerprints
from rankwise.execution.observer import Observer
from rankwise.execution.packing import SizedRun, cut_packs, estimate_memory, micro_tokens_of
from rankwise.execution.quantization_errors import measure_errors, quantized_bases
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
from rankwise.study.plan import Fingerprints, PlannedRun, report_runs, tuning_runs, unique
from rankwise.training.allocated_run import AllocatedRun
from rankwise.training.engine import EngineOptions, train_pack

POLL_S = 2.0
"""How often runs that another worker holds are looked at."""


class StudyStopped(Exception):  # noqa: N818 - not an error: someone asked for it
    """The study was asked to stop; checkpoints are written and the same command goes on."""


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """How a study is run on this machine; nothing here changes a result beyond rounding."""

    out: Path
    """Holds checkpoints, and the results of a single study."""
    command: str = "rankwise study"
    max_slots: int = DEFAULT_MAX_SLOTS
    memory_bytes: int | None = None
    """Limit of one pack; None: what is free now, less a reserve."""
    num_workers: int = 1
    """How many processes share the study; none takes more than its share of the runs that are left."""
    solo_first: bool = False
    """Train each arm's first reported seed alone: its time and memory are then its own, not a share of a pack's."""
    engine: EngineOptions = field(default_factory=EngineOptions)


@dataclass(frozen=True, kw_only=True)
class Member:
    """A study of a suite, and the folder that its results go to."""

    study: Study
    out: Path


@dataclass(frozen=True, kw_only=True)
class SuiteResults:
    """What became of each study of a suite, by its name."""

    results: Mapping[str, StudyResults]
    """Of the studies that are complete."""
    failures: Mapping[str, RunFailedError]
    """Why the others are not; their finished runs are kept."""


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
    members = [Member(study=study, out=options.out)]
    suite = run_suite(members, ledger, options, observer=observer, should_stop=should_stop)
    for failure in suite.failures.values():
        raise failure
    return suite.results[study.name]


def run_suite(
    members: Sequence[Member],
    ledger: Ledger,
    options: StudyOptions,
    *,
    observer: Observer | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> SuiteResults:
    """Train what is missing of all `members` side by side: first every tuning run, then every reported one.

    A study whose runs fail keeps none of the others from being finished.

    Args:
        members: Studies of different names.
        options: `out` holds the checkpoints of packs; results go to each member's own folder.

    Raises:
        RankwiseError: a base model or data set cannot be read, an arm not be realised or a run not fit the memory; told
            for all studies at once, before anything is trained.
        StudyStopped: `should_stop` answered True; everything so far is kept.
    """
    keep_freed_memory()
    return _SuiteRun(members, ledger, options, Workbench(), observer or Observer(), should_stop).run()


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
    members = [Member(study=study, out=options.out)]
    return _SuiteRun(members, ledger, options, bench, observer or Observer(), should_stop).run_phases(study, phases)


def benchmark_members(
    members: Sequence[Member],
    ledger: Ledger,
    *,
    bench: Workbench,
    observer: Observer,
    should_stop: Callable[[], bool],
) -> None:
    """Run the benchmarks of studies whose runs have all ended.

    Raises:
        StudyStopped: `should_stop` answered True; what was scored is kept.
    """
    for member in members:
        run_benchmarks(member.study, member.out, ledger, bench=bench, observer=observer, should_stop=should_stop)
        if member.study.benchmarks and should_stop():
            raise StudyStopped


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    """A member, read and sized but not trained."""

    member: Member
    fingerprints: Fingerprints
    evidence: str | None
    """What the fingerprints rest on, taken before it was read."""
    sizes: Mapping[str, SizedRun]
    """One run of each arm: sizes do not depend on learning rate and seed."""

    @property
    def study(self) -> Study:
        return self.member.study

    def sized(self, planned: Iterable[PlannedRun]) -> list[SizedRun]:
        return [replace(self.sizes[plan.run.arm.name], planned=plan) for plan in planned]


class _SuiteRun:
    def __init__(
        self,
        members: Sequence[Member],
        ledger: Ledger,
        options: StudyOptions,
        bench: Workbench,
        observer: Observer,
        should_stop: Callable[[], bool],
    ) -> None:
        self.members = members
        self.ledger = ledger
        self.options = options
        self.observer = observer
        self.should_stop = should_stop
        self.bench = bench
        self.predictor = DurationPredictor(bench)
        self.checkpoints = CheckpointFolder(options.out / "checkpoints")
        self.worker = worker_name()
        self.failed: dict[str, str] = {}
        self.homes: dict[str, list[Path]] = {}
        """Reported run -> the results folders that its adapter goes to."""
        self.solo: set[str] = set()
        """Runs that share their pack with no other."""

    def run(self) -> SuiteResults:
        prepared = self._prepare()
        tuning = {one.study.name: tuning_runs(one.study, one.fingerprints) for one in prepared}
        for one in prepared:
            self._register(one.study, tuning[one.study.name])
            self._measure_quantization(one.study)
        self._train("tuning", [run for one in prepared for run in one.sized(tuning[one.study.name])])
        reported: dict[str, list[PlannedRun]] = {}
        failures: dict[str, RunFailedError] = {}
        for one in prepared:
            name = one.study.name
            try:
                self._raise_failures(tuning[name])
                reported[name] = self._choose(one, tuning[name])
            except RunFailedError as error:
                failures[name] = error
        complete = [one for one in prepared if one.study.name in reported]
        self._train("report", [run for one in complete for run in one.sized(reported[one.study.name])])
        for one in complete:
            try:
                self._raise_failures(reported[one.study.name])
            except RunFailedError as error:
                failures[one.study.name] = error
            else:
                self._finish(one)
        if self.options.num_workers == 1:  # several workers leave it to their parent
            self._benchmark([one.member for one in complete if one.study.name not in failures])
        if not failures:
            self.checkpoints.clear()
        done = [one.study.name for one in complete if one.study.name not in failures]
        return SuiteResults(results={name: self.ledger.study_results(name) for name in done}, failures=failures)

    def _benchmark(self, members: Sequence[Member]) -> None:
        benchmark_members(members, self.ledger, bench=self.bench, observer=self.observer, should_stop=self.should_stop)

    def run_phases(self, study: Study, phases: Sequence[tuple[str, Sequence[PlannedRun]]]) -> StudyResults:
        planned = [plan for _, plans in phases for plan in plans]
        self._register(study, planned)
        for name, plans in phases:
            self._train(name, size_runs(plans, self.bench, self.options.engine))
        self._raise_failures(planned)
        return self.ledger.study_results(study.name)

    def _prepare(self) -> list[_Prepared]:
        """Read models and data, realise every arm and see that a run of each fits; nothing is written."""
        prepared, problems = [], []
        for member in self.members:
            try:
                prepared.append(self._prepare_one(member))
            except RankwiseError as error:
                problems.append((member.study.name, error))
        if problems:
            if len(self.members) == 1:
                raise problems[0][1]
            told = "\n".join(f"study {name}: {error}" for name, error in problems)
            raise StudyError(f"{told}\nNothing was trained. Leave these studies out, or correct them.")
        return prepared

    def _prepare_one(self, member: Member) -> _Prepared:
        study = member.study
        check_benchmarks(study)
        evidence = gather_evidence(study)
        fingerprints = self.bench.fingerprints(study)
        rates = {arm.name: arm.train.learning_rates[0] for arm in study.arms}
        one_each = {plan.run.arm.name: plan for plan in report_runs(study, rates, fingerprints)}
        sized = size_runs(list(one_each.values()), self.bench, self.options.engine)
        cut_packs(sized, limit_bytes=self.options.memory_bytes or available_bytes(), max_slots=1)
        return _Prepared(
            member=member,
            fingerprints=fingerprints,
            evidence=evidence,
            sizes={run.planned.run.arm.name: run for run in sized},
        )

    def _choose(self, one: _Prepared, tuning: Sequence[PlannedRun]) -> list[PlannedRun]:
        """The reported runs, at the learning rates that the tuning runs speak for."""
        name = one.study.name
        chosen = choose_learning_rates(one.study, self.ledger.study_results(name))
        self.ledger.set_chosen_learning_rates(name, chosen)
        reported = report_runs(one.study, chosen, one.fingerprints)
        self._register(one.study, [*tuning, *reported])
        for plan in reported:
            self.homes.setdefault(plan.run.id, []).append(one.member.out)
        if self.options.solo_first:
            self.solo.update(plan.run.id for plan in reported if plan.run.seed == one.study.seeds[0])
        return reported

    def _finish(self, one: _Prepared) -> None:
        CheckpointFolder(one.member.out / "checkpoints").clear()
        if one.evidence is not None and one.evidence == gather_evidence(one.study):
            keep_fingerprints(one.member.out, one.evidence, one.fingerprints)

    def _register(self, study: Study, planned: Sequence[PlannedRun]) -> None:
        self.ledger.register_study(study, [(plan.run, plan.purpose) for plan in planned])
        device = self.bench.shape(study.arms[0].base).device
        self.ledger.set_environment(study.name, describe_environment(device, self.options.command))
        self.ledger.set_data_summary(study.name, self._data_summary(study))

    def _measure_quantization(self, study: Study) -> None:
        """What quantizing changes at each layer; once in a study's life."""
        known = self.ledger.study_results(study.name, with_details=False).quantization_errors
        if quantized_bases(study) and not known:
            limit_bytes = self.options.memory_bytes or available_bytes()
            bases = list(measure_errors(study, self.bench, limit_bytes))
            for base in bases:
                if "missing" in base:
                    self.observer.note(f"quantization errors of {base['form']} are not measured: {base['missing']}")
            self.ledger.set_quantization_errors(study.name, {"bases": bases})

    def _data_summary(self, study: Study) -> dict[str, Any]:
        """Of the data that all arms share; where they differ, of each arm's under its name."""
        summaries = {arm.name: self.bench.data(arm).summary.to_dict() for arm in study.arms}
        first = next(iter(summaries.values()))
        return first if all(summary == first for summary in summaries.values()) else summaries

    def _train(self, phase: str, runs: Sequence[SizedRun]) -> None:
        """Train until every one of `runs` is finished, diverged or failed, here or by another worker."""
        sized: dict[str, SizedRun] = {}
        for run in runs:
            sized.setdefault(run.planned.run.id, run)
        left = self._left(sized)
        self.observer.phase(phase, len(sized), len(sized) - len(left), sum(sized[i].num_steps for i in left))
        while left := self._left(sized):
            if self.should_stop():
                raise StudyStopped
            pending = left & self._free_runs()
            if not pending:
                time.sleep(POLL_S)
                continue
            in_order = [run for run_id, run in sized.items() if run_id in pending]
            self._train_next(in_order, share=math.ceil(len(left) / self.options.num_workers))

    def _free_runs(self) -> set[str]:
        """Runs of any member that nobody works on."""
        return {run_id for member in self.members for run_id in self.ledger.pending_runs(member.study.name)}

    def _raise_failures(self, planned: Sequence[PlannedRun]) -> None:
        failed = {plan.run.id: plan.run.arm.name for plan in planned if plan.run.id in self.failed}
        if failed:
            raise RunFailedError(_describe_failures(failed, self.failed, len(unique(planned))))

    def _left(self, sized: dict[str, SizedRun]) -> set[str]:
        done = ("finished", "diverged")
        status = self.ledger.run_status(list(sized))
        return {run_id for run_id in sized if status.get(run_id) not in done and run_id not in self.failed}

    def _train_next(self, pending: Sequence[SizedRun], share: int) -> None:
        """Claim one pack of at most `share` runs and train it: one with a checkpoint first, else of a fresh plan."""
        pack = self._resumable(pending) or self._next_pack(pending, share)
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

    def _next_pack(self, pending: Sequence[SizedRun], share: int) -> Pack[SizedRun]:
        """Of a fresh plan for the memory that is free now; runs that go alone come first."""
        limit_bytes = self.options.memory_bytes or available_bytes()
        if solo := [run for run in pending if run.planned.run.id in self.solo]:
            return cut_packs(solo, limit_bytes=limit_bytes, max_slots=1)[0]
        return cut_packs(pending, limit_bytes=limit_bytes, max_slots=min(self.options.max_slots, share))[0]

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
        self.observer.note(f"{why}, with {len(pack.items)} runs side by side; going on with {len(parts[0].items)}")
        for part in parts:
            self._train_pack(part)

    def _train_once(self, pack: Pack[SizedRun]) -> None:
        predicted_s = self._predict_shares_s(pack)
        allocator = self.bench.allocator(pack.items[0].planned.run.arm.base)
        allocated = allocator.allocate_all((item.planned.run, item.data) for item in pack.items)
        runs = [replace(run, predicted_wall_s=share_s) for run, share_s in zip(allocated, predicted_s, strict=True)]
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

    def _predict_shares_s(self, pack: Pack[SizedRun]) -> Sequence[float | None]:
        """Of each run; what could not be calibrated is not predicted, and trained all the same.

        Asked before anything of the pack is loaded, so that passes that are only measured add nothing to its peak.
        """
        try:
            return self.predictor.predict_shares_s(pack.items)
        except Exception as error:
            self.observer.note(f"the time of this pack is not predicted: {type(error).__name__}: {error}")
            return [None] * len(pack.items)

    def _store(self, records: Sequence[Record], runs: Sequence[AllocatedRun]) -> None:
        """Adapters first: a run that the ledger calls finished has its adapter on disk."""
        by_id = {run.run.id: run for run in runs}
        for record in records:
            if isinstance(record, AdapterTrained) and by_id[record.run_id].run.scores_test:
                run = by_id[record.run_id]
                base_name = run.run.arm.base.model
                stored = run.rank_map.with_ranks({name: len(down) for name, (down, _) in record.tensors.items()})
                for home in self.homes.get(record.run_id, [self.options.out]):
                    folder = home / "adapters" / record.run_id
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
