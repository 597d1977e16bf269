"""`rankwise runs push`: a copy of the ledger's runs in the tracker that the team looks at."""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rankwise.cli.console import console, error_console, print_json, printable
from rankwise.cli.options import ReadLedgerOption

if TYPE_CHECKING:
    from rankwise.ledger import Ledger
    from rankwise.tracking import Outcome, Pushed


OUTCOMES: "Mapping[Outcome, str]" = {"new": "new", "completed": "completed", "there": "already there"}


def push_runs(
    to: Annotated[Literal["mlflow", "tensorboard", "wandb"], typer.Option(help="Which tracker.", show_default=False)],
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ID]...", help="Ids of runs, or their first digits; without any, all runs and reports."
        ),
    ] = None,
    study: Annotated[str | None, typer.Option(help="Only the runs of this study, and its report.")] = None,
    uri: Annotated[
        str | None, typer.Option(help="MLflow: where it is; default MLFLOW_TRACKING_URI.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="TensorBoard, W&B offline: folder; default tracking/TRACKER.", show_default=False),
    ] = None,
    project: Annotated[
        str | None,
        typer.Option(
            help="MLflow: one experiment for all, instead of one a study; W&B: project, default rankwise.",
            show_default=False,
        ),
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="W&B: write runs that `wandb sync` sends later.")] = False,
    results: Annotated[
        Path | None, typer.Option(help="Results folder of --study; default results/STUDY.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was pushed as one JSON document.")] = False,
    ledger: ReadLedgerOption = None,
) -> None:
    """Example: rankwise runs push --to tensorboard

    Copy every run that has ended to a tracker, with settings, metrics by step, scores, cost and audit, and each study's
    report. What is there already is left alone and what was pushed in part is completed, so it may be repeated.
    """
    if results is not None and study is None:
        raise typer.BadParameter("--results is the folder of one study; name that with --study.")
    from rankwise.ledger import open_ledger
    from rankwise.tracking import Place, PushOptions, open_tracker, push

    tracker = open_tracker(to, Place(uri=uri, out=out, project=project, offline=offline))
    with open_ledger(ledger, create=False) as opened:
        run_ids = {opened.run(prefix).id for prefix in runs} if runs else None
        with redirect_stdout(sys.stderr):  # trackers print what they like
            options = PushOptions(study=study, run_ids=run_ids, study_results=results)
            pushed = list(_with_progress(push(opened, tracker, options)))
        num_waiting = _num_waiting(opened, study) if run_ids is None else 0
    if as_json:
        print_json(
            {"tracker": to, "place": tracker.place, "pushed": list(map(asdict, pushed)), "num_not_ended": num_waiting}
        )
        return
    for line in summary_lines(tracker.place, pushed, num_waiting, wants_reports=run_ids is None):
        console.print(printable(line), markup=False, soft_wrap=True)


def _with_progress(pushed: "Iterator[Pushed]") -> "Iterator[Pushed]":
    from rich.progress import track

    yield from track(pushed, "pushing", console=error_console, disable=not error_console.is_terminal, transient=True)


def _num_waiting(ledger: "Ledger", study: str | None) -> int:
    """Runs that were left out because they have not ended."""
    names = ledger.study_names() if study is None else [study]
    runs = [run for name in names for run in ledger.study_results(name, with_details=False).runs]
    return len({run.id for run in runs if run.status in ("pending", "running")})


def summary_lines(place: str, pushed: "Sequence[Pushed]", num_waiting: int, *, wants_reports: bool) -> list[str]:
    """What a person wants to know afterwards: where it is, what was done, what was left out."""
    if not pushed:
        lines = ["The ledger holds no run that has ended, so nothing was pushed."]
    else:
        runs, reports = (
            Counter(entry.outcome for entry in pushed if (entry.key == "report") is is_report)
            for is_report in (False, True)
        )
        lines = [f"{place}: {_counted(runs, 'run')}" + f"; {_counted(reports, 'report')}" * wants_reports]
        lacking = {entry.study for entry in pushed} - {entry.study for entry in pushed if entry.key == "report"}
        if lacking and wants_reports:
            lines.append(f"no report was found of {', '.join(sorted(lacking))}: `rankwise report STUDY` writes one")
    if num_waiting:
        lines.append(f"{num_waiting} runs have not ended; push again when they have")
    return lines


def _counted(outcomes: "Counter[Outcome]", what: str) -> str:
    parts = [f"{outcomes[outcome]} {words}" for outcome, words in OUTCOMES.items() if outcomes[outcome]]
    return f"{what}s: {', '.join(parts) if parts else 'none'}"
