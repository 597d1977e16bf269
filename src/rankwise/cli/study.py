"""`rankwise study`: from a study file to a report."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated

import typer

from rankwise.cli.console import console, error_console
from rankwise.cli.options import LedgerOption
from rankwise.cli.plan import print_plan
from rankwise.cli.sizes import parse_bytes
from rankwise.errors import ReportError, StudyError

if TYPE_CHECKING:
    from rankwise.ledger.results import StudyResults
    from rankwise.study.config import Study

STOPPED = 130
MAX_WORKERS = 256
"""Each is a process with the base model in its memory; more is a typing error."""


def study(
    file: Annotated[
        Path | None, typer.Argument(help="A study file; without one the embedded study runs.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results; default results/NAME.", show_default=False)
    ] = None,
    ledger: LedgerOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and train nothing.")] = False,
    max_pack: Annotated[int, typer.Option(min=1, help="Most runs side by side; 1 trains one at a time.")] = 16,
    memory: Annotated[
        str | None, typer.Option(help="Memory that a pack may fill, such as 8GiB; default: what is free.")
    ] = None,
    workers: Annotated[
        str, typer.Option(metavar="N", help="Processes that share the runs, the processor and the memory.")
    ] = "1",
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as one JSON document.")] = False,
) -> None:
    """Example: rankwise study studies/embedded.yaml

    Plan, train, evaluate, compare and report a study. Stop it at any time, by any means; the same command goes on
    where it was, and a finished study answers in about a second.
    """
    from rankwise.study import load_study

    path = file or embedded_study()
    planned = load_study(path)
    limit_bytes = parse_bytes(memory) if memory else None
    num_workers = _parse_workers(workers)
    if dry_run:
        print_plan(planned, max_slots=max_pack, limit_bytes=limit_bytes, as_json=as_json, ledger=ledger)
        return
    folder = out or Path("results") / planned.name
    write_resolved(planned, folder)
    verdict = _report_kept(planned, folder, ledger)
    if verdict is None:
        results = _train(planned, folder, ledger, max_pack, limit_bytes, num_workers)
        verdict = _write_report(results, folder)
    _print_report(verdict, folder, as_json)


def embedded_study() -> Path:
    """The study that ships inside the package."""
    return Path(str(resources.files("rankwise") / "assets" / "studies" / "embedded.yaml"))


def write_resolved(planned: "Study", folder: Path) -> None:
    """Write `study.resolved.json`, which also shows early whether the folder can be written.

    Raises:
        ReportError: it cannot.
    """
    from rankwise.study import resolved_json

    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / "study.resolved.json.partial"
        partial.write_text(resolved_json(planned), encoding="utf-8")
        partial.replace(folder / "study.resolved.json")
    except OSError as error:
        raise ReportError(
            f"the results folder {folder} cannot be written: {error.strerror or error}. Nothing was trained; choose "
            "another folder with --out."
        ) from error


def command_line() -> str:
    """The command as it was typed, for the report."""
    return " ".join(["rankwise", *sys.argv[1:]])


def _parse_workers(text: str) -> int:
    """Raises StudyError for anything but a number of processes."""
    if text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_WORKERS:
        return int(text)
    if text == "ray":
        raise StudyError(
            "--workers ray: training on a Ray cluster is not available yet. Give the number of processes on this "
            "machine, such as --workers 2; or start the same command on several machines with one PostgreSQL ledger "
            "(--ledger postgresql+psycopg://USER@HOST/DATABASE): they share its runs."
        )
    raise StudyError(f"--workers {text!r}: allowed is a number of processes from 1 to {MAX_WORKERS}, such as 2.")


def _train(
    planned: "Study", folder: Path, ledger_url: str | None, max_pack: int, limit_bytes: int | None, num_workers: int
) -> "StudyResults":
    from rankwise.cli.progress import StudyProgress
    from rankwise.execution.run_study import StudyOptions, StudyStopped, run_study
    from rankwise.execution.workers import run_with_workers
    from rankwise.ledger import open_ledger

    options = StudyOptions(out=folder, command=command_line(), max_slots=max_pack, memory_bytes=limit_bytes)
    shared = f", {num_workers} workers" if num_workers > 1 else ""
    error_console.print(f"study {planned.name}: {len(planned.arms)} arms, results in {folder}{shared}")
    try:
        with StudyProgress() as progress, stop_on_signal() as stop:
            if num_workers > 1:
                return run_with_workers(
                    planned, ledger_url, options, num_workers=num_workers, observer=progress, should_stop=stop.is_set
                )
            with open_ledger(ledger_url) as ledger:
                return run_study(planned, ledger, options, observer=progress, should_stop=stop.is_set)
    except StudyStopped:
        error_console.print("stopped; everything so far is kept, and the same command goes on from here.")
        raise typer.Exit(STOPPED) from None


def _report_kept(planned: "Study", folder: Path, ledger_url: str | None) -> str | None:
    """The verdict of a study that is finished, from its report, which is written again only where it must be.

    None where there is something to train, or where that cannot be known without loading the models and the data.
    """
    from rankwise.execution.finished import finished_results
    from rankwise.ledger import open_ledger
    from rankwise.reporting.kept import kept_verdict

    with open_ledger(ledger_url) as ledger:
        results = finished_results(planned, ledger, folder)
        if results is None:
            return None
        error_console.print(f"study {planned.name}: all {len(results.runs)} runs are in the ledger already")
        verdict = kept_verdict(results, folder, command=command_line())
        return verdict or _write_report(ledger.study_results(planned.name), folder)


def _write_report(results: "StudyResults", folder: Path) -> str:
    from rankwise.reporting.write import write_report

    return write_report(results, folder, command=command_line()).verdict


def _print_report(verdict: str, folder: Path, as_json: bool) -> None:
    if as_json:
        console.file.write((folder / "comparison.json").read_text(encoding="utf-8"))
        return
    console.print(f"\n{verdict}\n", markup=False)
    console.print(f"report: {folder / 'RESULTS.md'}", markup=False)


@contextmanager
def stop_on_signal() -> Iterator[Event]:
    """The event is set by the first Ctrl-C or SIGTERM; a second one interrupts at once."""
    stop = Event()

    def on_signal(number: int, _frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        os.write(2, b"\nstopping after this step (again to stop at once)\n")

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
