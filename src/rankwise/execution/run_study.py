"""Studies from plan to finished ledger: tune, choose, train, all resumable at any point.

Several studies of a suite share every phase: a run that two of them need is trained once, and runs of different
studies over the same base model ride in one pack.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rankwise.errors import RankwiseError, RunFailedError, StudyError
from rankwise.execution.benchmarking import check_benchmarks, run_benchmarks
from rankwise.execution.checkpoints import CheckpointFolder
from rankwise.execution.environment import describe_environment
from rankwise.execution.finished import gather_evidence, keep_fingerprints
from rankwise.execution.observer import Observer
from rankwise.execution.packing import SizedRun, cut_packs
from rankwise.execution.quantization_errors import measure_errors, quantized_bases
from rankwise.execution.sizing import available_bytes, size_runs
from rankwise.execution.study_options import StudyOptions, StudyStopped
from rankwise.execution.train_runs import RunTrainer
from rankwise.execution.tuning import choose_learning_rates
from rankwise.execution.workbench import Workbench
from rankwise.ledger import Ledger
from rankwise.ledger.results import StudyResults
from rankwise.models.host_memory import keep_freed_memory
from rankwise.study.config import Study
from rankwise.study.plan import Fingerprints, PlannedRun, report_runs, tuning_runs


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
    """The phases of all members, side by side."""

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
        names = [member.study.name for member in members]
        self.trainer = RunTrainer(names, ledger, options, bench, observer, should_stop)

    def run(self) -> SuiteResults:
        prepared = self._prepare()
        tuning = {one.study.name: tuning_runs(one.study, one.fingerprints) for one in prepared}
        for one in prepared:
            self._register(one.study, tuning[one.study.name])
            self._measure_quantization(one.study)
        self.trainer.train("tuning", [run for one in prepared for run in one.sized(tuning[one.study.name])])
        reported: dict[str, list[PlannedRun]] = {}
        failures: dict[str, RunFailedError] = {}
        for one in prepared:
            name = one.study.name
            try:
                self.trainer.raise_failures(tuning[name])
                reported[name] = self._choose(one, tuning[name])
            except RunFailedError as error:
                failures[name] = error
        complete = [one for one in prepared if one.study.name in reported]
        self.trainer.train("report", [run for one in complete for run in one.sized(reported[one.study.name])])
        for one in complete:
            try:
                self.trainer.raise_failures(reported[one.study.name])
            except RunFailedError as error:
                failures[one.study.name] = error
            else:
                self._finish(one)
        if self.options.num_workers == 1:  # several workers leave it to their parent
            self._benchmark([one.member for one in complete if one.study.name not in failures])
        if not failures:
            self.trainer.checkpoints.clear()
        done = [one.study.name for one in complete if one.study.name not in failures]
        return SuiteResults(results={name: self.ledger.study_results(name) for name in done}, failures=failures)

    def _benchmark(self, members: Sequence[Member]) -> None:
        benchmark_members(members, self.ledger, bench=self.bench, observer=self.observer, should_stop=self.should_stop)

    def run_phases(self, study: Study, phases: Sequence[tuple[str, Sequence[PlannedRun]]]) -> StudyResults:
        planned = [plan for _, plans in phases for plan in plans]
        self._register(study, planned)
        for name, plans in phases:
            self.trainer.train(name, size_runs(plans, self.bench, self.options.engine))
        self.trainer.raise_failures(planned)
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
            self.trainer.homes.setdefault(plan.run.id, []).append(one.member.out)
        if self.options.solo_first:
            self.trainer.solo.update(plan.run.id for plan in reported if plan.run.seed == one.study.seeds[0])
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
