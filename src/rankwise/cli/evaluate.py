"""`rankwise evaluate`: held-out scores of adapters, or of a base model alone."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rankwise.cli.console import console, error_console, print_json
from rankwise.cli.options import DATA_HELP

if TYPE_CHECKING:
    from rich.progress import Progress

    from rankwise.data.examples import Example
    from rankwise.data.general import GeneralText
    from rankwise.data.prepare import PreparedData
    from rankwise.execution.evaluate import Evaluation
    from rankwise.execution.side_by_side import SideBySide


def evaluate(
    adapters: Annotated[
        list[str],
        typer.Argument(
            metavar="ADAPTER...",
            help="Folders of PEFT adapters of one base; or a base model: nano, a hub id, a folder.",
        ),
    ],
    data: Annotated[str | None, typer.Option(help=DATA_HELP)] = None,
    model: Annotated[
        str | None, typer.Option(help="Base model of the adapters; default: the one their configurations name.")
    ] = None,
    template: Annotated[
        Literal["alpaca", "chat", "plain"] | None,
        typer.Option(help="How an example becomes a prompt; default: as the adapter was trained, else alpaca."),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(min=2, help="Longer examples are excluded; default: as the adapter was trained, else 256."),
    ] = None,
    num: Annotated[
        int | None, typer.Option(min=1, help="Examples to score; default 200, or what the adapter's own run had.")
    ] = None,
    split: Annotated[Literal["test", "validation"], typer.Option(help="Which examples.")] = "test",
    generate: Annotated[
        bool,
        typer.Option("--generate/--no-generate", help="Also write answers and compare them with the expected ones."),
    ] = True,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest answer written; default: the longest expected one.")
    ] = None,
    forgetting: Annotated[
        str | None,
        typer.Option(help="Text to measure forgetting on: general (comes with rankwise), or a file of plain text."),
    ] = None,
    examples: Annotated[int, typer.Option(min=0, help="Show this many questions with both answers.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="File for one JSON line per example: losses, answers, scores.")
    ] = None,
    benchmark: Annotated[
        str | None,
        typer.Option(
            help="Instead of --data: skills, gsm8k, or any other task of lm-evaluation-harness (extra bench)."
        ),
    ] = None,
    benchmark_data: Annotated[
        Path | None, typer.Option(help="Of gsm8k, a local file of questions and answers; without it, the hub's.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="First examples of the benchmark only.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores as one JSON document.")] = False,
) -> None:
    """Example: rankwise evaluate adapter --data skills --examples 3

    Score an adapter on held-out examples: the expected answers (loss, perplexity, calibration), the answers that it
    writes itself (exact match, ROUGE-L, chrF), and what it forgot of general text, each with an interval. Several
    adapters of one base go through it together and are compared on the same examples. With a base model in place of
    an adapter, the score before any training.
    """
    if examples and not generate:
        raise typer.BadParameter("--examples shows generated answers; leave out --no-generate.")
    _check_source(
        data, benchmark, benchmark_data, limit, {"--num": num, "--forgetting": forgetting, "--examples": examples}
    )
    if data is None:
        from rankwise.cli import benchmark as benchmarking

        assert benchmark is not None
        benchmarking.run(
            adapters,
            benchmark,
            model=model,
            file=benchmark_data,
            template=template,
            limit=limit,
            out=out,
            as_json=as_json,
        )
        return
    from rankwise.cli.evaluation_documents import example_rows, partial_of, write_rows
    from rankwise.data.general import load_general
    from rankwise.data.prepare import prepare_data
    from rankwise.evaluation.forgetting import general_tokens
    from rankwise.execution.evaluate import data_settings
    from rankwise.execution.side_by_side import load_side_by_side
    from rankwise.models.context import check_context
    from rankwise.models.host_memory import keep_freed_memory

    keep_freed_memory()
    partial = partial_of(out) if out else None
    try:
        together = load_side_by_side(adapters, model)
        _note_other_bases(together)
        records = [found.record for found in together.models]
        settings = data_settings(records, data, split=split, num=num, template=template, max_tokens=max_tokens)
        check_context(together.base.model, together.base.settings.model, settings.max_tokens)
        prepared = prepare_data(settings, together.base.tokenizer)
        general = None
        if forgetting is not None:
            general = load_general(forgetting, together.base.tokenizer, max_tokens=general_tokens(together.base.model))
            _note_left_out(general)
        evaluations = _evaluate(together, prepared, split, generate, max_new_tokens, general)
        if out:
            write_rows(out, example_rows(evaluations, prepared.examples[split]))
    finally:
        if partial:
            partial.unlink(missing_ok=True)
    _show(evaluations, prepared.examples[split], split, num_examples=examples, as_json=as_json)


def _check_source(
    data: str | None, benchmark: str | None, file: Path | None, limit: int | None, of_data: dict[str, object]
) -> None:
    """Examples come from a data set or from a benchmark, and each has options of its own."""
    if (data is None) == (benchmark is None):
        raise typer.BadParameter("give --data DATA for held-out examples, or --benchmark NAME, and not both.")
    of_benchmark = {"--benchmark-data": file, "--limit": limit}
    for name, value in (of_data if data is None else of_benchmark).items():
        if value:
            raise typer.BadParameter(f"{name} goes with {'--data' if data is None else '--benchmark'}; leave it out.")


def _note_other_bases(together: "SideBySide") -> None:
    for found in together.models:
        if found.record and found.record.spec["base_fingerprint"] != together.base.fingerprint:
            error_console.print(
                f"note: the base model, or the form it runs in here, is not the one that {found.name} was trained on",
                soft_wrap=True,
                markup=False,
            )


def _note_left_out(general: "GeneralText") -> None:
    if general.num_over_long:
        total = len(general.passages) + general.num_over_long
        error_console.print(
            f"note: left out {general.num_over_long} of {total} passages of general text, because the model cannot "
            "take them whole",
            soft_wrap=True,
        )


def _evaluate(
    together: "SideBySide",
    prepared: "PreparedData",
    split: Literal["test", "validation"],
    generate: bool,
    max_new_tokens: int | None,
    general: "GeneralText | None",
) -> "list[Evaluation]":
    from rankwise.execution.evaluate import evaluate_models

    tokens = prepared.validation if split == "validation" else prepared.test
    examples = prepared.examples[split]
    with _progress() as bars:
        task = bars.add_task("writing answers", total=len(tokens) * len(together.models), visible=generate)
        return evaluate_models(
            together,
            tokens,
            examples,
            generate=generate and examples[0].has_prompt,
            max_new_tokens=max_new_tokens,
            general=general,
            on_batch=lambda num_done: bars.advance(task, num_done),
        )


def _progress() -> "Progress":
    from rich.progress import Progress

    return Progress(console=error_console, disable=not error_console.is_terminal, transient=True)


def _show(
    evaluations: "Sequence[Evaluation]",
    examples: "Sequence[Example]",
    split: str,
    *,
    num_examples: int,
    as_json: bool,
) -> None:
    from rankwise.cli.evaluation_documents import scores_document, side_by_side_document
    from rankwise.cli.evaluation_tables import scores_page, side_by_side_page
    from rankwise.cli.run_tables import answers_table
    from rankwise.evaluation.held_out import answer_rows

    place = error_console if as_json else console
    for evaluation in evaluations:
        written = evaluation.scores.written
        if num_examples and written is not None:
            if len(evaluations) > 1:
                place.print(evaluation.model.name, style="bold", markup=False)
            place.print(answers_table(islice(answer_rows(written, examples), num_examples)))
    if as_json:
        print_json(scores_document(evaluations[0]) if len(evaluations) == 1 else side_by_side_document(evaluations))
    else:
        one = len(evaluations) == 1
        console.print(scores_page(evaluations[0], split) if one else side_by_side_page(evaluations, split))
