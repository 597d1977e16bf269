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
from rankwise.cli.plan import print_plan
from rankwise.cli.sizes import parse_bytes
from rankwise.errors import ReportError

if TYPE_CHECKING:
    from rankwise.ledger.results import StudyResults
    from rankwise.study.config import Study

STOPPED = 130


def study(
    file: Annotated[
        Path | None, typer.Argument(help="A study file; without one the embedded study runs.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results; default results/NAME.", show_default=False)
    ] = None,
    ledger: Annotated[
        str | None,
        typer.Option(envvar="RANKWISE_LEDGER", help="Database of all runs; default rankwise.db.", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and train nothing.")] = False,
    max_pack: Annotated[int, typer.Option(min=1, help="Most runs side by side; 1 trains one at a time.")] = 16,
    memory: Annotated[
        str | None, typer.Option(help="Memory that a pack may fill, such as 8GiB; default: what is free.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as one JSON document.")] = False,
) -> None:
    """Example: rankwise study studies/embedded.yaml

    Plan, train, evaluate, compare and report a study. Stop it at any time, by any means; the same command goes on
    where it was, and a finished study only writes its report again.
    """
    from rankwise.study import load_study

    path = file or embedded_study()
    planned = load_study(path)
    limit_bytes = parse_bytes(memory) if memory else None
    if dry_run:
        print_plan(planned, max_slots=max_pack, limit_bytes=limit_bytes, as_json=as_json, ledger=ledger)
        return
    folder = out or Path("results") / planned.name
    write_resolved(planned, folder)
    results = _train(planned, folder, ledger, max_pack, limit_bytes)
    _report(results, folder, as_json)


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


def _train(
    planned: "Study", folder: Path, ledger_url: str | None, max_pack: int, limit_bytes: int | None
) -> "StudyResults":
    from rankwise.cli.progress import StudyProgress
    from rankwise.execution.run_study import StudyOptions, StudyStopped, run_study
    from rankwise.ledger import open_ledger

    options = StudyOptions(out=folder, command=command_line(), max_slots=max_pack, memory_bytes=limit_bytes)
    error_console.print(f"study {planned.name}: {len(planned.arms)} arms, results in {folder}")
    try:
        with open_ledger(ledger_url) as ledger, StudyProgress() as progress, stop_on_signal() as stop:
            return run_study(planned, ledger, options, observer=progress, should_stop=stop.is_set)
    except StudyStopped:
        error_console.print("stopped; everything so far is kept, and the same command goes on from here.")
        raise typer.Exit(STOPPED) from None


def _report(results: "StudyResults", folder: Path, as_json: bool) -> None:
    from rankwise.reporting.write import write_report

    files = write_report(results, folder, command=command_line())
    if as_json:
        console.file.write(files.comparison.read_text(encoding="utf-8"))
        return
    console.print(f"\n{files.verdict}\n", markup=False)
    console.print(f"report: {files.results}", markup=False)


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
