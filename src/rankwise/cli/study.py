"""`rankwise study`: from study files to reports."""

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

from rankwise.cli.options import LedgerOption, StudyDataOption, StudyModelOption
from rankwise.cli.plan import print_plans
from rankwise.cli.sizes import parse_bytes
from rankwise.errors import ReportError, StudyError
from rankwise.files import write_whole

if TYPE_CHECKING:
    from rankwise.study.config import Study

STOPPED = 130
MAX_WORKERS = 256
"""Each is a process with the base model in its memory; more is a typing error."""


def study(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Study files; without one the embedded study runs.", show_default=False),
    ] = None,
    model: StudyModelOption = None,
    data: StudyDataOption = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the results; of several studies, the folder above them.", show_default=False),
    ] = None,
    ledger: LedgerOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and train nothing.")] = False,
    max_pack: Annotated[int, typer.Option(min=1, help="Most runs side by side; 1 trains one at a time.")] = 16,
    solo_first: Annotated[
        bool, typer.Option("--solo-first", help="Train each arm's first seed alone, to measure its time and memory.")
    ] = False,
    memory: Annotated[
        str | None, typer.Option(help="Memory that a pack may fill, such as 8GiB; default: what is free.")
    ] = None,
    workers: Annotated[
        str, typer.Option(metavar="N", help="Processes that share the runs, the processor and the memory.")
    ] = "1",
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as one JSON document.")] = False,
) -> None:
    """Example: rankwise study studies/embedded.yaml

    Plan, train, evaluate, compare and report a study, or several that share their runs and packs. Stop it at any time,
    by any means; the same command goes on where it was, and a finished study answers in about a second.
    """
    from rankwise.cli.suite import SUITE_FOLDER, SuiteRun, load_studies

    studies = load_studies(files or [embedded_study()], model=model, data=data)
    limit_bytes = parse_bytes(memory) if memory else None
    num_workers = _parse_workers(workers)
    if dry_run:
        print_plans(studies, max_slots=max_pack, limit_bytes=limit_bytes, as_json=as_json, ledger=ledger)
        return
    above = out or Path("results")
    is_suite = len(studies) > 1
    folders = {one.name: out if out and not is_suite else above / one.name for one in studies}
    for one in studies:
        write_resolved(one, folders[one.name])
    suite = SuiteRun(studies, folders, ledger)
    if suite.unfinished:
        from rankwise.execution.study_options import StudyOptions

        options = StudyOptions(
            out=above / SUITE_FOLDER if is_suite else folders[studies[0].name],
            command=command_line(),
            max_slots=max_pack,
            memory_bytes=limit_bytes,
            solo_first=solo_first,
        )
        suite.train(options, num_workers)
    suite.print(as_json)


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
        write_whole(folder / "study.resolved.json", resolved_json(planned))
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
