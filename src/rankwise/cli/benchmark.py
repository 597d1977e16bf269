"""`rankwise evaluate --benchmark`: lm-evaluation-harness on adapters, one after the other."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankwise.cli.console import console, print_json
from rankwise.data.sources import SKILLS
from rankwise.evaluation.benchmark_tasks import TaskInputs, check_file
from rankwise.evaluation.benchmarks import BenchmarkResult, require_benchmark, run_benchmark
from rankwise.execution.benchmarking import task_inputs
from rankwise.execution.evaluate import NUM_EXAMPLES, data_settings
from rankwise.execution.load_adapted import find_model, load_adapted

if TYPE_CHECKING:
    from rankwise.execution.adapter_record import AdapterRecord
    from rankwise.models.load import LoadedBase

Found = tuple[str, BenchmarkResult]
"""A model's name and what it scored."""


def run(
    names: Sequence[str],
    benchmark: str,
    *,
    model: str | None,
    file: Path | None,
    template: str | None,
    limit: int | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Run the benchmark on every model and show it; `out` gets every example."""
    from rankwise.cli.evaluation_documents import partial_of, write_rows

    require_benchmark(benchmark)
    check_file(benchmark, file)
    for name in names:
        find_model(name, model)  # a wrong name is told before anything is loaded
    partial = partial_of(out) if out else None
    try:
        found = [(name, _run_one(name, benchmark, model, file, template, limit)) for name in names]
        if out:
            write_rows(out, ({"model": name, **row} for name, result in found for row in result.examples))
    finally:
        if partial:
            partial.unlink(missing_ok=True)
    if as_json:
        documents = [_document(name, result) for name, result in found]
        print_json(documents[0] if len(documents) == 1 else {"models": documents})
    else:
        _print(found)


def _run_one(
    name: str, benchmark: str, model: str | None, file: Path | None, template: str | None, limit: int | None
) -> BenchmarkResult:
    base, record = load_adapted(name, model)
    inputs = _inputs(base, record, benchmark, file, template, limit)
    return run_benchmark(base, benchmark, inputs, limit=limit)


def _inputs(
    base: "LoadedBase",
    record: "AdapterRecord | None",
    benchmark: str,
    file: Path | None,
    template: str | None,
    limit: int | None,
) -> TaskInputs:
    """Of `skills` the examples that `--data skills` would score; other tasks bring their own."""
    if benchmark != SKILLS:
        return task_inputs(base, file=file)
    from rankwise.data.prepare import prepare_data

    own = record is not None and record.data.source == benchmark
    num = limit or (None if own else NUM_EXAMPLES)
    settings = data_settings([record], benchmark, split="test", num=num, template=template, max_tokens=None)
    examples = prepare_data(settings, base.tokenizer).examples["test"]
    return task_inputs(base, template=settings.template, examples=examples, file=file)


def _document(name: str, result: BenchmarkResult) -> dict[str, Any]:
    return {
        "name": name,
        "benchmark": result.name,
        "harness": f"lm-eval {result.harness}",
        "num_examples": result.num_examples,
        "scores": [
            {"task": s.task, "metric": s.metric, "filter": s.filter, "value": s.value, "stderr": s.stderr}
            for s in result.scores
        ],
    }


def _print(found: Sequence[Found]) -> None:
    from rich.table import Table

    from rankwise.cli.console import cell

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("model", overflow="fold")
    for head in ("task", "score", "read by"):
        table.add_column(head)
    for head in ("n", "value", "± standard error"):
        table.add_column(head, justify="right")
    for name, result in found:
        for score in result.scores:
            error = None if score.stderr is None else f"{score.stderr:.4f}"
            texts = (name, score.task, score.metric, score.filter, f"{result.num_examples:,}", f"{score.value:.4f}")
            table.add_row(*map(cell, (*texts, error)))
    harness = {result.harness for _, result in found}
    console.print(table)
    console.print()
    console.print(f"lm-evaluation-harness {', '.join(harness)}; standard errors over examples.", style="dim")
