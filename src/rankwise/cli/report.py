"""`rankwise report`: write a study's report again from the ledger, on any machine, without torch."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from rankwise.cli.console import console
from rankwise.errors import ReportError

RESOLVED = "study.resolved.json"


def report(
    study: Annotated[
        str, typer.Argument(metavar="DIR|STUDY", help="Results folder of a study, or the study's name in the ledger.")
    ],
    ledger: Annotated[
        str | None,
        typer.Option(envvar="RANKWISE_LEDGER", help="Ledger to read: a database URL or a file. [default: rankwise.db]"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as one JSON document.")] = False,
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve the page to this machine alone, fresh while the study runs.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of --serve; 0: any that is free.")] = 8765,
) -> None:
    """Example: rankwise report results/embedded

    Compare a study's arms and write RESULTS.md, report.html, the figures with their data, and comparison.json from
    what the ledger holds now. Trains nothing, and works on unfinished studies, too. Given a name, it writes into
    results/NAME.
    """
    from rankwise.ledger import open_ledger
    from rankwise.reporting.write import write_report

    folder, name = find_study(study)
    if serve:
        _serve(name, ledger, port)
        return
    with open_ledger(ledger, create=False) as opened:
        results = opened.study_results(name)
    files = write_report(results, folder)
    if as_json:
        console.file.write(files.comparison.read_text(encoding="utf-8"))
        return
    console.print(f"{files.verdict}\n", markup=False)
    console.print(f"report: {files.results}", markup=False, soft_wrap=True)
    console.print(f"page:   {files.page}", markup=False, soft_wrap=True)


def _serve(name: str, ledger: str | None, port: int) -> None:
    """Until Ctrl-C."""
    from rankwise.ledger import open_ledger
    from rankwise.reporting.serve import HOST, LivePage, open_server

    with open_ledger(ledger, create=False) as opened:
        page = LivePage(opened, name)
        page.version()  # an unknown study is refused before anything is served
        with open_server(page, port) as server, suppress(KeyboardInterrupt):
            console.print(f"http://{HOST}:{server.server_port}/  (Ctrl-C ends)", markup=False)
            server.serve_forever()


def find_study(place: str) -> tuple[Path, str]:
    """Where the report belongs, and the study's name in the ledger.

    Raises:
        ReportError: the folder is none, or holds no resolved study that can be read.
    """
    folder = Path(place)
    if folder.is_dir():
        return folder, _study_name(folder)
    if folder.name != place:
        raise ReportError(
            f"{place}: there is no such folder. Give a study's results folder, or its name in the ledger."
        )
    return Path("results") / place, place


def _study_name(folder: Path) -> str:
    path = folder / RESOLVED
    advice = "Give the folder that `rankwise study` wrote, or the study's name in the ledger."
    try:
        name = json.loads(path.read_text(encoding="utf-8"))["name"]
    except FileNotFoundError:
        raise ReportError(f"{folder} holds no {RESOLVED}. {advice}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ReportError(f"{path} is not a resolved study ({type(error).__name__}: {error}). {advice}") from error
    if not isinstance(name, str):
        raise ReportError(f"{path}: the name is {name!r}, which is no text. {advice}")
    return name
