"""`rankwise recommend`: which adapter configuration for a model, data and a machine, with the evidence."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rankwise.cli.console import cell, console, error_console, print_json
from rankwise.cli.options import (
    BatchSizeOption,
    DataOption,
    EpochsOption,
    GradientCheckpointingOption,
    LedgerOption,
    MaxTokensOption,
    ModelOption,
    TemplateOption,
    TrainExamplesOption,
)
from rankwise.cli.sizes import parse_bytes, parse_duration
from rankwise.cli.train import absolute, one_run_study

if TYPE_CHECKING:
    from rich.table import Table

    from rankwise.execution.recommend.answer import Answer
    from rankwise.execution.recommend.confirm import Judgement
    from rankwise.execution.recommend.question import Question
    from rankwise.execution.workbench import Workbench
    from rankwise.study import Arm

CONSTANT_SCALE = 2.0
"""alpha = 2 x rank at every site, so that neither another rank nor another allocation changes the size of a step."""


def recommend(
    model: ModelOption,
    data: DataOption,
    memory: Annotated[
        str | None,
        typer.Option(help="What training one adapter may use, such as 8GiB; default: no limit.", show_default=False),
    ] = None,
    rank: Annotated[
        int | None,
        typer.Option(min=1, help="A fixed budget: what a uniform rank of this size would store.", show_default=False),
    ] = None,
    params: Annotated[
        int | None,
        typer.Option(min=1, help="A fixed budget in adapter parameters, instead of --rank.", show_default=False),
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="Longest time to train here, such as 30m; default: as long as it takes.")
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=2, max=100, help="Fresh seeds that confirm; default: 8, with --time 6 to 16.", show_default=False
        ),
    ] = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option(help="Race this strategy beside uniform, in place of the usual ones; may be repeated."),
    ] = None,
    learning_rate: Annotated[
        list[float] | None,
        typer.Option(
            help="Race exactly these learning rates; may be repeated. Default: a range for the model's width."
        ),
    ] = None,
    template: TemplateOption = "alpaca",
    max_tokens: MaxTokensOption = 256,
    train_examples: TrainExamplesOption = 64,
    validation: Annotated[int, typer.Option(min=1, help="Examples that the race is scored on.")] = 64,
    test: Annotated[int, typer.Option(min=2, help="Examples that the finalists are scored on.")] = 160,
    epochs: EpochsOption = 2.0,
    batch_size: BatchSizeOption = 4,
    gradient_checkpointing: GradientCheckpointingOption = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results; default results/recommend-QUESTION.", show_default=False)
    ] = None,
    ledger: LedgerOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the recommendation as one JSON document.")] = False,
) -> None:
    """Example: rankwise recommend --model nano --data skills

    Race ranks, target layers, allocations and learning rates on validation loss, confirm the finalists on fresh paired
    seeds and test data, and recommend the simplest that is not significantly worse than the best: in words, as a PEFT
    configuration, a training script and a trained adapter. Stop it at any time; the same command goes on.
    """
    if rank is not None and params is not None:
        raise typer.BadParameter("--rank and --params both fix the budget. Give one of them, or neither to race ranks.")
    limit_bytes = parse_bytes(memory) if memory else None
    time_s = parse_duration(time) if time else None

    from rankwise.execution.workbench import Workbench

    bench = Workbench()
    template_arm = _template(
        {
            "base": {"model": absolute(model)},
            "data": {
                "source": absolute(data),
                "template": template,
                "max_tokens": max_tokens,
                "train": train_examples,
                "validation": validation,
                "test": test,
            },
            "budget": _budget(rank, params),
            "scaling": {"rule": "constant", "scale": CONSTANT_SCALE},
            "train": {"epochs": epochs, "batch_size": batch_size, "gradient_checkpointing": gradient_checkpointing},
        },
        learning_rate,
        bench,
    )
    question = _ask(template_arm, rank or params, learning_rate, strategy, limit_bytes, seeds)
    folder = out or Path("results") / question.name
    document, answer = _answer(question, folder, ledger, time_s, bench)
    if as_json:
        print_json(document)
    else:
        _print_answer(document, answer)


def _budget(rank: int | None, params: int | None) -> dict[str, int]:
    from rankwise.execution.recommend.question import CENTRE_RANK

    return {"params": params} if params is not None else {"rank": rank or CENTRE_RANK}


def _template(shared: dict[str, Any], rates: list[float] | None, bench: "Workbench") -> "Arm":
    """The uniform arm that all others are made from, validated as a study's; its learning rates are guessed last."""
    from rankwise.execution.recommend.candidates import guess_rates

    study = one_run_study(_with_rates(shared, rates or [1e-3]), "uniform", {}, 0)
    if rates:
        return study.arms[0]
    width = bench.shape(study.arms[0].base).model.config.get_text_config().hidden_size
    return one_run_study(_with_rates(shared, list(guess_rates(width))), "uniform", {}, 0).arms[0]


def _with_rates(shared: dict[str, Any], rates: list[float]) -> dict[str, Any]:
    return {**shared, "train": {**shared["train"], "learning_rates": rates}}


def _ask(
    template: "Arm",
    budget: int | None,
    rates: list[float] | None,
    strategies: list[str] | None,
    memory_bytes: int | None,
    seeds: int | None,
) -> "Question":
    from rankwise.allocation import STRATEGIES, build_strategy
    from rankwise.execution.recommend.candidates import STRATEGIES_RACED
    from rankwise.execution.recommend.question import Question

    for name in strategies or ():
        build_strategy(name, {})  # says which strategies there are
    names = strategies or [name for name in STRATEGIES_RACED if name in STRATEGIES]
    return Question(
        template=template,
        is_budget_given=budget is not None,
        are_rates_given=bool(rates),
        strategies=tuple(dict.fromkeys(name for name in names if name != "uniform")),
        memory_bytes=memory_bytes,
        num_seeds=seeds,
    )


def _answer(
    question: "Question", folder: Path, ledger_url: str | None, time_s: float | None, bench: "Workbench"
) -> "tuple[dict[str, Any], Answer]":
    from rankwise.cli.progress import StudyProgress
    from rankwise.cli.study import STOPPED, command_line, stop_on_signal
    from rankwise.execution.recommend.answer import answer
    from rankwise.execution.recommend.files import write_answer
    from rankwise.execution.study_options import StudyStopped
    from rankwise.ledger import open_ledger

    command = command_line()
    try:
        with open_ledger(ledger_url) as ledger, StudyProgress() as progress, stop_on_signal() as stop:
            found = answer(
                question,
                ledger,
                folder,
                bench,
                command=command,
                time_s=time_s,
                observer=progress,
                should_stop=stop.is_set,
            )
            progress.note(f"writing {folder}")
            return write_answer(found, ledger, folder, bench, command=command, should_stop=stop.is_set), found
    except StudyStopped:
        error_console.print("stopped; everything so far is kept, and the same command goes on from here.")
        raise typer.Exit(STOPPED) from None


def _print_answer(document: dict[str, Any], answer: "Answer") -> None:

    console.print()
    console.print(cell(document["advice"]), soft_wrap=not console.is_terminal)
    console.print()
    console.print(_finalist_table(answer.judgement))
    console.print()
    for name, place in document["files"].items():
        console.print(f"{name}: {place}", markup=False, soft_wrap=True)


def _finalist_table(judgement: "Judgement") -> "Table":
    """What fits a terminal of RECOMMENDATION.md's table: the simplest arm first, an arrow at the recommended one."""
    from rich.table import Table

    from rankwise.execution.recommend.document import verdict_of
    from rankwise.reporting.format import MISSING, format_difference, format_loss, format_p

    table = Table(box=None, header_style="bold", pad_edge=False, collapse_padding=True)
    table.add_column("")
    table.add_column("arm", min_width=15)
    for name in ("params", "loss", "against the best", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", min_width=9)
    for finalist in judgement.finalists:
        name = finalist.arm.name
        found = judgement.against_best(name)
        row = [
            "→" if name == judgement.recommended else "",
            name,
            f"{finalist.params:,}",
            format_loss(finalist.test_loss.value if finalist.test_loss else None),
            format_difference(found.estimate) if found else MISSING,
            format_p(found.p_holm) if found else MISSING,
            verdict_of(finalist, judgement),
        ]
        table.add_row(*map(cell, row))
    return table
