"""`rankwise export`: an adapter in the form that another tool takes, or what each tool would make of it as it is."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rankwise.cli.console import console, error_console, print_json

if TYPE_CHECKING:
    from rich.table import Table

    from rankwise.execution.export import Checked, Exported
    from rankwise.lora.runtimes import Verdict

OUTCOME_STYLES = {"exact": "green", "wrong scale": "red", "refused": "yellow"}
LOST_FRAC = 0.01
"""Rounding error, relative to the update, from which a person is told."""


def export(
    adapter: Annotated[Path, typer.Argument(help="Folder of a LoRA adapter that rankwise or PEFT wrote.")],
    to: Annotated[
        Literal["peft", "baked", "merged"] | None,
        typer.Option(
            help="peft: ranks and scales as patterns; baked: one rank, scale 1, no patterns; merged: a whole model.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="New folder to write.", show_default=False)] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; show what each runtime would make of the adapter.")
    ] = False,
    model: Annotated[
        str | None, typer.Option(help="Base model; default: the one that the adapter's configuration names.")
    ] = None,
    rank: Annotated[
        int | None, typer.Option(min=1, help="The one rank of --to baked; default: the largest of any layer.")
    ] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"], typer.Option(help="Number format of --to merged.")
    ] = "float32",
    base_name: Annotated[
        str | None, typer.Option(help="What the export calls its base; default: a name that resolves on this machine.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the export that is in --out.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what was found or written as one JSON document.")
    ] = False,
) -> None:
    """Example: rankwise export adapter --to baked --out adapter-vllm

    Write an adapter for PEFT, vLLM, SGLang or llama.cpp, or merge it into its base. The files are loaded again and must
    give the original's logits before they are put in place. Any plain LoRA adapter will do, whoever trained it.
    """
    _check_options(to, out, check, rank, dtype, base_name)
    if check:
        from rankwise.execution.export import check_adapter

        checked = check_adapter(adapter, model)
        if as_json:
            print_json(asdict(checked))
        else:
            _print_checked(checked)
        return
    assert to is not None
    assert out is not None
    from rankwise.execution.export import ExportOptions, export_adapter

    exported = export_adapter(
        adapter,
        ExportOptions(kind=to, out=out, model=model, rank=rank, dtype=dtype, base_name=base_name, replace=replace),
    )
    if as_json:
        print_json(asdict(exported))
    else:
        _print_exported(exported)
    _warn(exported)


def _check_options(
    to: str | None, out: Path | None, check: bool, rank: int | None, dtype: str, base_name: str | None
) -> None:
    if check and (to is not None or out is not None):
        raise typer.BadParameter("--check writes nothing; leave out --to and --out.")
    if not check and (to is None or out is None):
        raise typer.BadParameter("give --to and --out, or --check to write nothing.")
    if rank is not None and to != "baked":
        raise typer.BadParameter("--rank is for --to baked; the other forms keep each layer's own rank.")
    if dtype != "float32" and to != "merged":
        raise typer.BadParameter("--dtype is for --to merged; adapters are written in float32.")
    if base_name is not None and to not in ("peft", "baked"):
        raise typer.BadParameter("--base-name is for --to peft and --to baked; a merged model needs no base.")


def _print_checked(checked: "Checked") -> None:
    from rankwise.cli.run_tables import facts_table

    ranks = ", ".join(map(str, checked.ranks))
    console.print(
        facts_table(
            {"adapter": checked.adapter, "base": checked.base_model, "layers": f"{checked.num_layers}, of rank {ranks}"}
        )
    )
    console.print()
    console.print(_verdicts_table(checked.runtimes))
    if any(verdict.outcome == "wrong scale" for verdict in checked.runtimes):
        error_console.print("note: `rankwise export --to baked` makes a copy that all of these scale rightly")


def _print_exported(exported: "Exported") -> None:
    from rankwise.cli.run_tables import facts_table
    from rankwise.reporting.format import format_bytes

    facts: dict[str, object] = {
        "written": f"{exported.out} ({len(exported.files)} files, {format_bytes(sum(exported.files.values()))})",
        "base": exported.base_model,
        "layers": f"{exported.num_layers} adapted",
    }
    if exported.rank is not None:
        form = (
            f"rank {exported.rank} everywhere, scale 1" if exported.kind == "baked" else f"up to rank {exported.rank}"
        )
        facts["layers"] = f"{exported.num_layers} adapted, {form}, {exported.params:,} parameters"
    allowed = "" if exported.allowed_difference is None else f" ({exported.allowed_difference:.1e} allowed)"
    facts["logits"] = (
        f"differ by at most {exported.max_logit_difference:.1e}{allowed} on {exported.num_tokens} tokens; the adapter "
        f"itself changes them by up to {exported.adapter_effect:.3g}"
    )
    console.print(facts_table(facts))
    if exported.runtimes:
        console.print()
        console.print(_verdicts_table(exported.runtimes))


def _verdicts_table(verdicts: Sequence["Verdict"]) -> "Table":
    from rich.table import Table

    from rankwise.cli.console import cell

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("runtime", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("its scale / the right one", justify="right", no_wrap=True)
    table.add_column("why, and what it needs", overflow="fold")
    for verdict in verdicts:
        why = "; ".join((*verdict.reasons, *verdict.notes))
        outcome = cell(verdict.outcome, OUTCOME_STYLES[verdict.outcome])
        table.add_row(cell(verdict.runtime), outcome, cell(_factors(verdict)), cell(why))
    return table


def _factors(verdict: "Verdict") -> str | None:
    if verdict.smallest_factor is None or verdict.largest_factor is None:
        return None
    low, high = f"{verdict.smallest_factor:.4g}", f"{verdict.largest_factor:.4g}"
    span = low if low == high else f"{low} to {high}"
    return span if not verdict.num_wrong else f"{span} in {verdict.num_wrong} layers"


def _warn(exported: "Exported") -> None:
    """What a person should know before using the export."""
    wrong = [verdict.runtime for verdict in exported.runtimes if verdict.outcome == "wrong scale"]
    if wrong:
        error_console.print(
            f"note: {', '.join(wrong)} would scale this adapter otherwise than it was trained; export --to baked for it"
        )
    if exported.adapter_effect == 0:
        error_console.print("note: the adapter changes no logit at all; was it trained?")
    if exported.rounding_error_frac > LOST_FRAC:
        error_console.print(
            f"note: rounding to {exported.dtype} changed the adapted weights by {exported.rounding_error_frac:.0%} of "
            "what the adapter changed them by; --dtype float32 loses nothing"
        )
