"""`rankwise profile`: memory, time and speed of generation of adapters on a model, predicted and measured."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rankwise.cli.console import console, error_console, print_json
from rankwise.cli.options import GradientCheckpointingOption, ModelOption

if TYPE_CHECKING:
    from rankwise.execution.profile.values import Profile

DEFAULT_RANKS = (0, 8, 64, 256)


def profile(
    model: ModelOption,
    rank: Annotated[
        list[int] | None,
        typer.Option(
            min=0,
            help="Rank of every layer, 0 for the base alone; may be given again. [default: 0, 8, 64, 256]",
            show_default=False,
        ),
    ] = None,
    quantization: Annotated[
        Literal["none", "int8", "nf4", "fp4"],
        typer.Option(help="How the base is stored; needs the extra quant."),
    ] = "none",
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"], typer.Option(help="Number format of the base.")
    ] = "auto",
    targets: Annotated[
        str, typer.Option(help="Layers: all-linear, attention, mlp, a module name or a regular expression.")
    ] = "all-linear",
    gradient_checkpointing: GradientCheckpointingOption = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows of a step, and prompts of a batch.")] = 4,
    tokens: Annotated[int, typer.Option(min=2, help="Tokens of a row; a prompt has half as many.")] = 128,
    new_tokens: Annotated[int, typer.Option(min=2, help="Tokens generated after each prompt.")] = 16,
    repeats: Annotated[int, typer.Option(min=1, help="Measured steps, of which the median counts.")] = 5,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for profile.json and the chart as PNG, PDF and CSV.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of the tables.")] = False,
) -> None:
    """Example: rankwise profile --model nano --rank 0 --rank 8

    What an adapter costs on this machine: peak memory by cause, predicted beside measured; time of the forward pass,
    the backward pass and the optimizer; and how fast the model generates with the adapter separate, merged and baked.
    Every rank is measured in a process of its own, on rows of random tokens.
    """
    from rankwise.execution.profile.run import run_profile
    from rankwise.execution.profile.values import ProfileSettings
    from rankwise.study.config import BaseSettings

    settings = ProfileSettings(
        base=BaseSettings(model=model, quantization=quantization, dtype=dtype),
        targets=targets,
        gradient_checkpointing=gradient_checkpointing,
        batch_size=batch_size,
        tokens=tokens,
        new_tokens=new_tokens,
        repeats=repeats,
    )
    ranks = list(dict.fromkeys(rank if rank else DEFAULT_RANKS))
    found = _run(settings, ranks, run_profile)
    written = _write(found, out) if out is not None else []
    if as_json:
        print_json(document(found))
        return
    from rankwise.cli.profile_tables import profile_page

    console.print(profile_page(found))
    for path in written:
        console.print(f"written: {path}", markup=False)


def _run(settings: Any, ranks: list[int], run_profile: Any) -> "Profile":
    from rich.progress import Progress

    with Progress(console=error_console, disable=not error_console.is_terminal, transient=True) as bars:
        task = bars.add_task("starting", total=len(ranks))

        def on_rank(rank: int) -> None:
            bars.update(task, description=f"rank {rank}", completed=ranks.index(rank))

        return run_profile(settings, ranks, on_rank=on_rank)


def document(found: "Profile") -> dict[str, Any]:
    """The profile as plain JSON values, with what follows from them."""
    values: dict[str, Any] = found.model_dump(mode="json")
    for entry, rank in zip(values["ranks"], found.ranks, strict=True):
        entry["error_frac"] = rank.error_frac
        entry["measured"]["step_s"] = rank.measured.step_s
    return values


def _write(found: "Profile", folder: Path) -> list[Path]:
    from rankwise.reporting.profile_chart import draw_profile

    folder.mkdir(parents=True, exist_ok=True)
    values = document(found)
    path = folder / "profile.json"
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    files = draw_profile(values, folder)
    return [path, files.png, files.pdf, files.csv]
