"""Options that several commands have, each said once."""

from typing import Annotated, Literal

import typer

DATA_HELP = "skills, alpaca, a hub id, or a .json, .jsonl, .csv, .parquet, .txt file."

ModelOption = Annotated[str, typer.Option(help="Base model: nano, a hub id or a folder.")]
DataOption = Annotated[str, typer.Option(help=DATA_HELP)]
StudyModelOption = Annotated[
    str | None,
    typer.Option("--model", help="A hub id or a folder, in place of the study's own base.model.", show_default=False),
]
StudyDataOption = Annotated[
    str | None,
    typer.Option("--data", help="A source, in place of the study's own data.source.", show_default=False),
]
TemplateOption = Annotated[Literal["alpaca", "chat", "plain"], typer.Option(help="How an example becomes a prompt.")]
MaxTokensOption = Annotated[int, typer.Option(min=2, help="Longer examples are excluded and counted, never cut.")]
TrainExamplesOption = Annotated[int, typer.Option(min=1, help="Training examples.")]
EpochsOption = Annotated[float, typer.Option(help="Passes over the training examples; a fraction is allowed.")]
BatchSizeOption = Annotated[int, typer.Option(min=1, help="Sequences per optimizer step.")]
GradientCheckpointingOption = Annotated[
    bool,
    typer.Option(
        "--gradient-checkpointing",
        help="Compute each block again in the backward pass: less memory, a third to a half more time, same losses.",
    ),
]
LedgerOption = Annotated[
    str | None,
    typer.Option(envvar="RANKWISE_LEDGER", help="Database of all runs; default rankwise.db.", show_default=False),
]
ReadLedgerOption = Annotated[
    str | None,
    typer.Option(
        "--ledger", envvar="RANKWISE_LEDGER", help="Ledger to read: a database URL or a file. [default: rankwise.db]"
    ),
]
