"""`rankwise allocate`: the rank map of one strategy on one model, as tables, JSON or a PEFT configuration."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rankwise.cli.console import console, error_console, print_json
from rankwise.cli.options import MaxTokensOption
from rankwise.cli.train import one_run_study, parse_settings
from rankwise.errors import AllocationError

if TYPE_CHECKING:
    from rankwise.allocation import RankMap
    from rankwise.execution.workbench import Workbench
    from rankwise.study import Arm


def allocate(
    model: Annotated[str, typer.Option(help="`nano`, a folder in Transformers' format, or a hub id.")],
    strategy: Annotated[str, typer.Option(help="How the budget is spread, such as linear_decay.")],
    rank: Annotated[
        int | None,
        typer.Option(min=1, help="Budget: what a uniform rank of this size would store.", show_default=False),
    ] = None,
    params: Annotated[
        int | None, typer.Option(min=1, help="Budget in adapter parameters, instead of --rank.", show_default=False)
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Examples for strategies that measure: `skills`, `alpaca`, a hub id or a file.", show_default=False
        ),
    ] = None,
    template: Annotated[
        Literal["alpaca", "chat", "plain"], typer.Option(help="How an example of --data becomes text.")
    ] = "alpaca",
    max_tokens: MaxTokensOption = 256,
    targets: Annotated[
        list[str] | None,
        typer.Option(
            help="Layers: all-linear, attention, mlp, head, a module name or a regular expression; may be given again. "
            "[default: all-linear]",
            show_default=False,
        ),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Setting of the strategy, such as first=2.0; may be given again.",
            show_default=False,
        ),
    ] = None,
    scaling: Annotated[
        Literal["alpha_over_r", "rslora", "constant"], typer.Option(help="How a site's scale follows from its rank.")
    ] = "alpha_over_r",
    alpha: Annotated[float, typer.Option(help="Numerator of alpha_over_r and rslora.")] = 16.0,
    scale: Annotated[float, typer.Option(help="The scale of constant.")] = 2.0,
    min_rank: Annotated[int, typer.Option(min=0, help="No site gets fewer components.")] = 1,
    max_rank: Annotated[
        int | None, typer.Option(min=1, help="No site gets more components.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 2, help="Order of the examples that are measured on.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Write a PEFT configuration (adapter_config.json) here.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of the tables.")] = False,
) -> None:
    """Example: rankwise allocate --model nano --strategy linear_decay --rank 8

    Spread a parameter budget over a model's layers: the rank of every layer as a table and as a heat map, and with
    --out as a configuration that PEFT loads. Strategies that measure nothing need no weights, only config.json;
    weight_spectrum needs the weights, and those that measure on examples need --data too.
    """
    from rankwise.execution.workbench import Workbench

    if (rank is None) == (params is None):
        raise typer.BadParameter("exactly one of --rank and --params is needed, such as --rank 8.")
    budget = {"rank": rank, "params": params, "min_rank": min_rank, "max_rank": max_rank}
    examples = {"train": _probe_examples(), "validation": 1, "test": 1}
    study = one_run_study(
        {
            "base": {"model": model},
            "data": {"source": data or "skills", "template": template, "max_tokens": max_tokens, **examples},
            "targets": targets[0] if targets and len(targets) == 1 else targets or "all-linear",
            "budget": {name: value for name, value in budget.items() if value is not None},
            "scaling": {"rule": scaling, "alpha": alpha, "scale": scale},
        },
        strategy,
        parse_settings(setting or []),
        seed,
    )
    (arm,) = study.arms
    bench = Workbench()
    rank_map = _map_ranks(arm, seed, bench, has_data=data is not None)
    if out is not None:
        _write_config(rank_map, arm, bench, out)
    if as_json:
        print_json(_document(rank_map, arm))
    else:
        _print_map(rank_map, arm)
        if out is not None:
            console.print(f"written: {out}", markup=False)


def _probe_examples() -> int:
    """What a probe reads of the training examples: no more is asked of a data set."""
    from rankwise.study.config import TrainSettings
    from rankwise.training.probe_batches import PROBE_BATCHES

    return PROBE_BATCHES * TrainSettings().batch_size


def _map_ranks(arm: "Arm", seed: int, bench: "Workbench", *, has_data: bool) -> "RankMap":
    """From config.json alone, or measured on real weights, and on examples where the strategy asks for them."""
    from rankwise.models.sites import find_sites
    from rankwise.probing.measure import measure
    from rankwise.study import Run
    from rankwise.training.allocate import plan_rank_map

    rate = arm.train.learning_rates[0]
    run = Run(arm=arm, learning_rate=rate, seed=seed, base_fingerprint="", data_fingerprint="")
    strategy = arm.build_strategy()
    if strategy.mover() is not None:
        raise AllocationError(
            f"--strategy {arm.strategy} has no rank map to show: its ranks move while a run trains. `rankwise train "
            f"--strategy {arm.strategy}` trains one and writes the ranks it ended with; `rankwise plan` shows what it "
            "holds until then. Choose a strategy that decides before training, such as linear_decay."
        )
    signals = sorted(strategy.required_signals())
    needs_data = any(signal.needs_data for signal in signals)
    if has_data and not needs_data:
        error_console.print(f"note: --data is not used, because {arm.strategy} looks at no examples", markup=False)
    if not signals:
        shape = bench.shape(arm.base)
        return plan_rank_map(run, find_sites(shape.model, arm.targets), shape.num_params, {})
    if not needs_data:
        base = bench.base(arm.base)
        sites = find_sites(base.model, arm.targets)
        return plan_rank_map(run, sites, base.num_params, measure(base.model, sites, (), signals).values)
    if not has_data:
        raise AllocationError(
            f"--data is missing: {arm.strategy} measures {', '.join(signals)} on training examples before it spreads "
            "the budget. Name some, such as --data skills, or choose a strategy that looks at none, such as "
            "linear_decay or weight_spectrum."
        )
    return bench.allocator(arm.base).allocate(run, bench.data(arm)).rank_map


def _write_config(rank_map: "RankMap", arm: "Arm", bench: "Workbench", out: Path) -> None:
    """Write the PEFT configuration, whole or not at all, after checking it against the model's module names."""
    from rankwise.allocation import check_patterns

    if out.is_dir():
        raise AllocationError(f"--out: {out} is a folder. Name a file in it, such as {out / 'adapter_config.json'}.")
    check_patterns(rank_map.to_peft_dict(), [name for name, _ in bench.shape(arm.base).model.named_modules()])
    config = rank_map.to_peft()
    config.base_model_name_or_path = arm.base.model
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        config.save_pretrained(folder)
        (Path(folder) / "adapter_config.json").replace(out)


def _document(rank_map: "RankMap", arm: "Arm") -> dict[str, Any]:
    return {
        "model": arm.base.model,
        "strategy": arm.strategy,
        "budget_params": rank_map.budget_params,
        "params": rank_map.params,
        "residual_params": rank_map.residual_params,
        "sites": [
            {"name": site.name, "rank": rank, "scale": scale, "params": rank * site.cost}
            for site, rank, scale in zip(rank_map.sites, rank_map.ranks, rank_map.scales, strict=True)
        ],
    }


def _print_map(rank_map: "RankMap", arm: "Arm") -> None:
    from rich.table import Table

    from rankwise.cli.console import cell
    from rankwise.cli.heatmap import heat_map
    from rankwise.cli.run_tables import facts_table
    from rankwise.reporting.audit import scaling_in_words

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("site", overflow="fold")
    for name in ("shape", "rank", "scale", "params"):
        table.add_column(name, justify="right", no_wrap=True)
    for site, rank, scale in zip(rank_map.sites, rank_map.ranks, rank_map.scales, strict=True):
        shape = f"{site.in_features:,} → {site.out_features:,}"
        table.add_row(*map(cell, (site.name, shape, rank, f"{scale:.4g}", f"{rank * site.cost:,}")))
    console.print(table)
    console.print()
    for line in heat_map(rank_map, console.width):
        console.print(line, soft_wrap=True)
    facts = {
        "model": arm.base.model,
        "strategy": arm.strategy,
        "scaling": scaling_in_words(arm.scaling.model_dump()),
        "budget": f"{rank_map.budget_params:,} adapter parameters",
        "spent": f"{rank_map.params:,} on {len(rank_map.sites)} sites, {rank_map.residual_params:,} left unspent",
    }
    console.print()
    console.print(facts_table(facts))
