"""`rankwise runs`: read the ledger. Which runs there are, what exactly one of them was, and how two of them differ."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rankwise.cli.console import console, finite, print_json
from rankwise.cli.options import ReadLedgerOption
from rankwise.cli.push import push_runs
from rankwise.errors import LedgerError

if TYPE_CHECKING:
    from rankwise.ledger import Ledger, RunRow
    from rankwise.records import StepTrace

app = typer.Typer(no_args_is_help=True, help="Example: rankwise runs list\n\nRead the ledger.")

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of the table.")]


@app.command("list", short_help="All runs and what they scored.")
def list_runs(
    study: Annotated[str | None, typer.Option(help="Only the runs of this study.")] = None,
    form: Annotated[
        Literal["table", "csv", "parquet", "json"] | None,
        typer.Option("--format", help="How to write them; default: a table, or what the name of --out ends in."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File to write instead of standard output.")] = None,
    as_json: JsonOption = False,
    ledger: ReadLedgerOption = None,
) -> None:
    """Example: rankwise runs list --study embedded

    List all runs of the ledger, or of one study, with their status and scores. A run that several studies or arms
    share is listed once for each. CSV and Parquet have more columns than fit a terminal.
    """
    from rankwise.cli.run_files import choose_format, write_runs

    chosen = choose_format(form, as_json, out)
    with _open(ledger) as opened:
        names = [study] if study is not None else opened.study_names()
        rows = [(name, run) for name in names for run in opened.study_results(name, with_details=False).runs]
    if chosen == "table":
        from rankwise.cli.run_tables import runs_table

        console.print(runs_table(rows) if rows else "The ledger holds no runs yet.")
    else:
        write_runs(rows, chosen, out)


@app.command("show", short_help="The audit of one run: planned and realised ranks, scores, curve, environment.")
def show_run(
    run: Annotated[str, typer.Argument(metavar="ID", help="Id of the run, or its first digits.")],
    examples: Annotated[
        int, typer.Option(min=0, help="Show this many test questions with the expected answer and the one it wrote.")
    ] = 0,
    as_json: JsonOption = False,
    ledger: ReadLedgerOption = None,
) -> None:
    """Example: rankwise runs show 3f9a

    Show everything about one run: per site the planned, realised and stored rank, scale, parameters, learning-rate
    factors, steps in which its rank moved and components that never moved; scores, learning rate, seed, curve,
    stability, cost, and the environment it was trained in.
    """
    with _open(ledger) as opened:
        found = opened.run(run)
        memberships = opened.memberships(found.id)
        environment = opened.environment_of(found.id)
        answers = opened.answers(found.id)[:examples] if examples else ()
    if examples and not answers:
        raise LedgerError(
            f"run {found.id} has no answers to show: it has not finished, or its study does not say evaluate: "
            "{generate: true}. `rankwise evaluate ADAPTER --data D --examples N` lets its adapter answer now."
        )
    if as_json:
        shown = {"examples": [asdict(answer) for answer in answers]} if examples else {}
        print_json(_show_document(found, memberships, environment) | shown)
    else:
        from rankwise.cli.run_tables import answers_table, run_page

        console.print(run_page(found, memberships, environment))
        if answers:
            console.print()
            console.print(answers_table(answers))


@app.command("compare", short_help="Two runs side by side, or the arms of a study.")
def compare_runs(
    first: Annotated[str, typer.Argument(metavar="ID|STUDY", help="Id of a run or its first digits; or a study.")],
    second: Annotated[str | None, typer.Argument(metavar="ID", help="Id of the other run.")] = None,
    ledger: ReadLedgerOption = None,
) -> None:
    """Example: rankwise runs compare 3f9a b07c

    Compare two runs: how their specifications and ranks differ, their scores side by side, and the paired difference
    over the test examples. With the name of a study, compare its arms with their baseline over seeds.
    """
    from rankwise.cli.run_comparison import arms_page, comparison_page

    with _open(ledger) as opened:
        if second is not None:
            page = comparison_page(opened.run(first), opened.run(second))
        else:
            page = arms_page(opened.study_results(first))
    console.print(page)


app.command("push", short_help="Copy runs and reports to MLflow, TensorBoard or Weights & Biases.")(push_runs)


def _open(ledger: str | None) -> "Ledger":
    # SQLAlchemy takes longer to import than `--help` may take to answer.
    from rankwise.ledger import open_ledger

    return open_ledger(ledger, create=False)


def _show_document(
    run: "RunRow", memberships: list[tuple[str, str, str]], environment: Mapping[str, str]
) -> dict[str, Any]:
    names = ("strategy", "learning_rate", "seed", "status", "error")
    params = ("budget_params", "params", "residual_params", "stored_params", "held_params")
    costs = ("steps", "wall_s", "probe_wall_s", "predicted_wall_s", "probe_peak_memory_bytes", "peak_memory_bytes")
    counts = ("predicted_memory_bytes", "micro_tokens", "pack_id", "pack_slots", "tokens", "padding_tokens")
    from rankwise.reporting.stability import grad_spikes, loss_spikes

    return {
        "id": run.id,
        "studies": [dict(zip(("study", "arm", "purpose"), place, strict=True)) for place in memberships],
        **{name: getattr(run, name) for name in names + params + costs + counts},
        "scores": finite(run.scores),
        "sites": _sites(run),
        "revisions": [{"step": revision.step, "ranks": revision.ranks} for revision in run.revisions],
        "stability": {
            "loss_spikes": loss_spikes(run),
            "gradient_spikes": grad_spikes(run),
            "traces": [_trace(trace) for trace in run.traces],
        },
        "training_curve": [finite(asdict(point)) for point in run.training_curve],
        "grad_norm_curve": [finite(asdict(point)) for point in run.grad_norm_curve],
        "learning_rate_curve": [asdict(point) for point in run.learning_rate_curve],
        "validation_curve": [finite(asdict(point)) for point in run.validation_curve],
        "spec": run.spec,
        "environment": environment,
    }


def _sites(run: "RunRow") -> list[dict[str, Any]]:
    """Per site the plan, what was read back before training, when its rank moved, and what is stored."""
    steps, outcomes = run.revision_steps(), dict(enumerate(run.outcomes))
    return [
        {
            **asdict(site),
            "revised_at": steps[index],
            "stored_rank": outcomes[index].rank if index in outcomes else None,
            "stored_params": outcomes[index].params if index in outcomes else None,
            "num_revisions": outcomes[index].num_revisions if index in outcomes else None,
            "num_unmoved": outcomes[index].num_unmoved if index in outcomes else None,
        }
        for index, site in enumerate(run.sites)
    ]


def _trace(trace: "StepTrace") -> dict[str, Any]:
    names = ("grad_norms", "update_norms", "weight_norms")
    norms = {name: finite(dict(zip(trace.groups, getattr(trace, name), strict=True))) for name in names}
    return {"step": trace.step, **norms}
