"""Benchmarks of a study: lm-evaluation-harness on each reported adapter and on the bases alone, kept in the ledger.

They are run when all adapters are trained, one adapter after the other, from the folders that users get; what the
ledger has is not run again. No run's identity depends on them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rankwise.data.examples import Example
from rankwise.data.prepare import prepare_data
from rankwise.data.sources import SKILLS
from rankwise.data.templates import Template
from rankwise.errors import AdapterError, EvaluationError, RankwiseError, StudyError
from rankwise.evaluation.benchmark_tasks import TaskInputs, check_file
from rankwise.evaluation.benchmarks import BenchmarkResult, require_benchmark, run_benchmark
from rankwise.execution.due_benchmarks import (
    SharedBase,
    benchmark_file,
    benchmark_fingerprint,
    benchmarked_runs,
    due_bases,
    due_runs,
    key_of,
    wanted_benchmarks,
)
from rankwise.execution.evaluate import data_settings
from rankwise.execution.observer import Observer
from rankwise.execution.workbench import Workbench
from rankwise.ledger import Ledger
from rankwise.ledger.results import RunRow
from rankwise.lora.attach_peft import attach_peft_adapter, detach_peft_adapter
from rankwise.models.context import context_tokens
from rankwise.models.load import LoadedBase
from rankwise.records import Benchmarked, Record
from rankwise.study.config import Arm, BenchmarkSettings, Study

DEFAULT_CONTEXT = 2048
"""As much as the harness uses of a model whose configuration names no limit."""


def task_inputs(
    base: LoadedBase, *, template: Template = "alpaca", examples: Sequence[Example] = (), file: Path | None = None
) -> TaskInputs:
    """What a local task is made from, for a model that is loaded."""
    context = min(context_tokens(base.model), DEFAULT_CONTEXT)
    return TaskInputs(tokenizer=base.tokenizer, context_tokens=context, template=template, examples=examples, file=file)


def check_benchmarks(study: Study) -> None:
    """See that every benchmark of a study can be run, before anything is trained.

    Raises:
        StudyError: the extra is not installed, there is no such task, or its file cannot be read.
    """
    for index, benchmark in enumerate(study.benchmarks):
        try:
            require_benchmark(benchmark.name)
            check_file(benchmark.name, benchmark_file(benchmark))
            benchmark_fingerprint(benchmark)
        except (RankwiseError, OSError) as error:
            why = f"{benchmark.data} cannot be read: {error.strerror}." if isinstance(error, OSError) else str(error)
            raise StudyError(f"study {study.name}, benchmarks[{index}]: {why}") from error


def run_benchmarks(
    study: Study,
    folder: Path,
    ledger: Ledger,
    *,
    bench: Workbench,
    observer: Observer,
    should_stop: Callable[[], bool],
) -> None:
    """Run what the ledger lacks of the study's benchmarks: on the bases, then on the adapters in `folder`.

    Ends early where `should_stop` answers True. A benchmark that cannot be run on one model is told of and not tried
    on the others; the same command tries it again.
    """
    if not study.benchmarks:
        return
    results = ledger.study_results(study.name, with_details=False)
    wanted = wanted_benchmarks(study)  # read once, so that all of a study's results are of the same files
    bases, runs = list(due_bases(study, wanted, results)), list(due_runs(wanted, results, folder))
    total = len(benchmarked_runs(results, folder)) * len(study.benchmarks)
    observer.phase("benchmarks", total, total - len(runs), len(runs))
    failed: set[BenchmarkSettings] = set()
    due: list[tuple[SharedBase | RunRow, BenchmarkSettings]] = [*bases, *runs]
    for model, benchmark in due:
        if should_stop():
            return
        if benchmark in failed:
            continue
        try:
            if isinstance(model, SharedBase):
                found = _run(bench.base(model.settings), model.arms[0], benchmark, bench)
                _keep_base(study, model, benchmark, wanted[benchmark], found, ledger)
            else:
                arm = study.arm(model.arm)
                with _adapted(bench.base(arm.base), folder / "adapters" / model.id) as adapted:
                    found = _run(adapted, arm, benchmark, bench)
                observer.records(_keep_run(model.id, benchmark, wanted[benchmark], found, ledger))
        except (EvaluationError, AdapterError) as error:
            failed.add(benchmark)
            observer.note(f"benchmark {benchmark.label} is left out: {error}")


def _keep_run(
    run_id: str, benchmark: BenchmarkSettings, fingerprint: str, found: BenchmarkResult, ledger: Ledger
) -> list[Record]:
    """Store what a benchmark said of a run's adapter."""
    record = Benchmarked(
        run_id=run_id,
        benchmark=benchmark.label,
        fingerprint=fingerprint,
        harness=found.harness,
        num_examples=found.num_examples,
        scores=found.scores,
    )
    ledger.write([record])
    return [record]


def _keep_base(
    study: Study,
    base: SharedBase,
    benchmark: BenchmarkSettings,
    fingerprint: str,
    found: BenchmarkResult,
    ledger: Ledger,
) -> None:
    """Store what a benchmark said of a base beside what is known of others."""
    result = {
        "benchmark": benchmark.label,
        "fingerprint": fingerprint,
        "harness": found.harness,
        "num_examples": found.num_examples,
        "scores": {score.key(benchmark.label): score.value for score in found.scores},
    }
    entries = ledger.study_results(study.name, with_details=False).base_benchmarks.get("bases", ())
    own = [kept for entry in entries if key_of(entry) == base.key for kept in entry["results"]]
    own = [kept for kept in own if kept["benchmark"] != benchmark.label]
    others = [entry for entry in entries if key_of(entry) != base.key]
    ledger.set_base_benchmarks(study.name, {"bases": [*others, {**base.key, "results": [*own, result]}]})


@contextmanager
def _adapted(base: LoadedBase, folder: Path) -> Iterator[LoadedBase]:
    """Within, the adapter of `folder` is on the base."""
    attach_peft_adapter(base.model, folder)
    try:
        yield base
    finally:
        detach_peft_adapter(base.model)


def _run(base: LoadedBase, arm: Arm, benchmark: BenchmarkSettings, bench: Workbench) -> BenchmarkResult:
    """Of `skills` the test examples of the arm's own data, if it is that; other tasks bring their own."""
    examples: Sequence[Example] = ()
    if benchmark.name == SKILLS and arm.data.source == SKILLS:
        examples = bench.data(arm).examples["test"]
    elif benchmark.name == SKILLS:
        settings = data_settings(
            [], SKILLS, split="test", num=benchmark.limit, template=arm.data.template, max_tokens=None
        )
        examples = prepare_data(settings, base.tokenizer).examples["test"]
    inputs = task_inputs(base, template=arm.data.template, examples=examples, file=benchmark_file(benchmark))
    return run_benchmark(base, benchmark.name, inputs, limit=benchmark.limit, show_progress=False)
