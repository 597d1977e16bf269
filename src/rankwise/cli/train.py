"""`rankwise train`: one run, one adapter in PEFT's format."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rankwise.cli.console import console, error_console, print_json
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
from rankwise.errors import StudyError

if TYPE_CHECKING:
    from rankwise.execution.adapter_record import AdapterRecord
    from rankwise.study import Study

ORIGIN = "rankwise train"


def train(
    model: ModelOption,
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Folder of the adapter; must not hold anything else.")],
    strategy: Annotated[str, typer.Option(help="How the budget is spent on the layers.")] = "uniform",
    rank: Annotated[int, typer.Option(min=1, help="Budget: what a uniform rank of this size would store.")] = 8,
    setting: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="A setting of the strategy; may be repeated.")
    ] = None,
    targets: Annotated[
        list[str] | None,
        typer.Option(help="all-linear, attention, mlp, head, a module name or a regular expression; may be repeated."),
    ] = None,
    quantization: Annotated[
        Literal["none", "int8", "nf4", "fp4"],
        typer.Option(help="How the base's weights are held; all but none need the extra quant."),
    ] = "none",
    template: TemplateOption = "alpaca",
    max_tokens: MaxTokensOption = 256,
    train_examples: TrainExamplesOption = 200,
    validation: Annotated[int, typer.Option(min=1, help="Examples scored while training.")] = 200,
    test: Annotated[int, typer.Option(min=1, help="Examples scored once, at the end.")] = 400,
    epochs: EpochsOption = 3.0,
    batch_size: BatchSizeOption = 4,
    gradient_checkpointing: GradientCheckpointingOption = False,
    learning_rate: Annotated[float, typer.Option(help="Peak of the schedule.")] = 3e-4,
    schedule: Annotated[Literal["cosine", "linear", "constant"], typer.Option(help="After warm-up.")] = "cosine",
    scaling: Annotated[
        Literal["alpha_over_r", "rslora", "constant"], typer.Option(help="How an adapter's output is scaled.")
    ] = "alpha_over_r",
    alpha: Annotated[float, typer.Option(help="Numerator of alpha_over_r and rslora.")] = 16.0,
    scale: Annotated[float, typer.Option(help="The factor of constant.")] = 2.0,
    dropout: Annotated[float, typer.Option(help="Dropout on the adapter's input.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Decides the data order and the initial adapter.")] = 0,
    ledger: LedgerOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was trained as one JSON document.")] = False,
) -> None:
    """Example: rankwise train --model nano --data skills --strategy linear_decay --rank 8 --out adapter

    Train one run and write its adapter in PEFT's format, with rankwise.json beside the weights. Stop it at any time;
    the same command goes on where it was. For which rank or strategy is best, `rankwise study` compares several.
    """
    study = one_run_study(
        {
            "base": {"model": absolute(model), **({} if quantization == "none" else {"quantization": quantization})},
            "data": {
                "source": absolute(data),
                "template": template,
                "max_tokens": max_tokens,
                "train": train_examples,
                "validation": validation,
                "test": test,
            },
            "targets": targets[0] if targets and len(targets) == 1 else targets or "all-linear",
            "budget": {"rank": rank},
            "train": {
                "epochs": epochs,
                "batch_size": batch_size,
                "learning_rates": [learning_rate],
                "schedule": schedule,
                **({"gradient_checkpointing": True} if gradient_checkpointing else {}),
            },
            "scaling": {"rule": scaling, "alpha": alpha, "scale": scale},
            "dropout": dropout,
        },
        strategy,
        parse_settings(setting or []),
        seed,
    )
    record = _train(study, out, ledger)
    if as_json:
        print_json({"out": str(out), **record.model_dump(mode="json")})
    else:
        _print_record(out, record)


def one_run_study(shared: dict[str, Any], strategy: str, settings: dict[str, Any], seed: int) -> "Study":
    """A study of one arm, one learning rate and one seed, named `train-` and a hash of all that was asked for.

    So the same options mean the same study and go on with it, and other options are another one in the ledger.

    Raises:
        StudyError: a setting cannot be used, by its place in a study.
    """
    document = {
        "hypothesis": f"One run of {strategy}, for its adapter.",
        **shared,
        "arms": [{**settings, "strategy": strategy}],
        "seeds": [seed],
        "tuning_seeds": [(seed + 1) % 2**32],  # one learning rate: never used
        "compare": {"baseline": strategy},
    }
    from rankwise.study import parse_study

    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:8]
    try:
        return parse_study(json.dumps({"name": f"train-{digest}", **document}), origin=ORIGIN)
    except StudyError as error:
        raise StudyError(str(error).replace(f"{ORIGIN}:1: ", "")) from None


def parse_settings(settings: list[str]) -> dict[str, Any]:
    """`["first=1.5", "of=linear_decay"]` -> `{"first": 1.5, "of": "linear_decay"}`: JSON values, else text.

    Raises:
        typer.BadParameter: one without `=`.
    """
    found = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise typer.BadParameter(f"--setting {text!r} is not KEY=VALUE, such as first=1.5.")
        try:
            found[key] = json.loads(value)
        except json.JSONDecodeError:
            found[key] = value
    return found


def absolute(name: str) -> str:
    """A folder or file that is there by its whole path, so that the adapter can say where it is; else the name."""
    path = Path(name).expanduser()
    return str(path.absolute()) if path.exists() else name


def _train(study: "Study", out: Path, ledger_url: str | None) -> "AdapterRecord":
    from rankwise.cli.progress import StudyProgress
    from rankwise.cli.study import STOPPED, command_line, stop_on_signal
    from rankwise.execution.study_options import StudyStopped
    from rankwise.execution.train_one import train_one
    from rankwise.ledger import open_ledger

    try:
        with open_ledger(ledger_url) as ledger, StudyProgress() as progress, stop_on_signal() as stop:
            return train_one(study, ledger, out, command=command_line(), observer=progress, should_stop=stop.is_set)
    except StudyStopped:
        error_console.print("stopped; everything so far is kept, and the same command goes on from here.")
        raise typer.Exit(STOPPED) from None


def _print_record(out: Path, record: "AdapterRecord") -> None:
    from rankwise.cli.run_tables import facts_table, format_score
    from rankwise.reporting.format import format_bytes, format_seconds

    scores = {name: format_score(name, value) for name, value in record.scores.items()}
    first, last = scores["initial_validation_loss"], scores["validation_loss"]
    facts = {
        "validation loss": f"{first} before, {last} after {record.steps} steps (nats per answer token)",
        "test loss": scores["test_loss"],
        "test perplexity": scores["test_perplexity"],
        "parameters": f"{record.params:,} stored, budget {record.budget_params:,}",
        "time": format_seconds(record.wall_s),
        "peak memory": format_bytes(record.peak_memory_bytes),
        "run": f"{record.run_id} in study {record.study}",
        "adapter": out,
    }
    console.print(facts_table(facts))
