"""A profile as people read it in the terminal."""

from rich.console import Group, RenderableType
from rich.table import Table

from rankwise.cli.console import cell
from rankwise.cli.run_tables import facts_table
from rankwise.execution.profile.values import TERMS, Profile, RankProfile
from rankwise.reporting.format import MISSING, format_bytes, format_percent

MEANINGS = {
    "runtime": "Python and its libraries",
    "weights": "base weights as stored",
    "adapters": "adapters, and their copies in the compute format",
    "gradients": "gradients of the adapters",
    "optimizer": "AdamW's two averages",
    "activations": "kept for the backward pass",
    "logits": "logits of the answer tokens, softmax and gradient",
    "workspace": "operations under way, and what the allocator holds",
}


def profile_page(found: Profile) -> Group:
    """Facts, costs of each rank, memory by cause at the widest, and generation."""
    parts: list[RenderableType] = [
        facts_table(_facts(found)),
        "",
        cell("A training step (rank 0: forward only)", "bold"),
        _steps_table(found),
        "",
        cell("Peak memory", "bold"),
        _peaks_table(found),
    ]
    for rank in {0: found.ranks[0], -1: found.ranks[-1]}.values() if len(found.ranks) > 1 else found.ranks:
        parts += ["", cell(f"Peak memory by cause, rank {rank.measured.rank}", "bold"), _terms_table(rank)]
    parts += ["", cell("Generation, greedy", "bold"), _generation_table(found)]
    return Group(*parts)


def _facts(found: Profile) -> dict[str, object]:
    base, settings = found.settings.base, found.settings
    stored = base.dtype if base.quantization == "none" else f"{base.quantization}, computing in {base.dtype}"
    return {
        "model": f"{base.model}, {found.num_params:,} parameters, {stored}",
        "device": f"{found.device}, {found.threads} thread{'s' if found.threads > 1 else ''}",
        "matrix products": f"{found.matmul_flops_per_s / 1e9:,.0f} GFLOP/s, measured now at the model's width",
        "rows": f"{settings.batch_size} of {settings.tokens} tokens"
        + (", gradient checkpointing" if settings.gradient_checkpointing else ""),
        "targets": settings.targets if isinstance(settings.targets, str) else ", ".join(settings.targets),
    }


def _table(*names: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _steps_table(found: Profile) -> Table:
    table = _table("rank", "params", "forward", "backward", "optimizer", "step", "tokens/s", "of peak")
    for rank in found.ranks:
        measured = rank.measured
        times = (measured.forward_s, measured.backward_s, measured.optimizer_s, measured.step_s)
        table.add_row(
            cell(measured.rank),
            cell(f"{measured.params:,}"),
            *(cell(_milliseconds(value)) for value in times),
            cell(f"{rank.tokens_per_s:,.0f}"),
            cell(format_percent(rank.peak_frac)),
        )
    return table


def _peaks_table(found: Profile) -> Table:
    table = _table("rank", "predicted", "measured", "error", "while loading")
    for rank in found.ranks:
        table.add_row(
            cell(rank.measured.rank),
            cell(format_bytes(rank.predicted_bytes)),
            cell(format_bytes(rank.measured.peak_bytes)),
            cell(f"{rank.error_frac:+.1%}"),
            cell(format_bytes(rank.measured.loading_peak_bytes)),
        )
    return table


def _terms_table(rank: RankProfile) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("")
    for name in ("predicted", "measured"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for name in TERMS:
        predicted, measured = rank.predicted_terms[name], rank.measured.terms[name]
        if predicted or measured:
            table.add_row(
                cell(name), cell(format_bytes(predicted)), cell(format_bytes(measured)), cell(MEANINGS[name], "dim")
            )
    return table


def _generation_table(found: Profile) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("rank", justify="right")
    table.add_column("adapter")
    for name in ("first token", "each further", f"tokens/s of {found.settings.batch_size} rows"):
        table.add_column(name, justify="right", no_wrap=True)
    for rank in found.ranks:
        for form, speed in rank.measured.generation.items():
            table.add_row(
                cell(rank.measured.rank),
                cell("none" if form == "base" else form),
                cell(_milliseconds(speed.first_token_s)),
                cell(_milliseconds(speed.token_s)),
                cell(f"{speed.tokens_per_s:,.1f}"),
            )
    return table


def _milliseconds(seconds: float | None) -> str:
    return MISSING if seconds is None else f"{1000 * seconds:,.1f} ms"
