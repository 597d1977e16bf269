"""`rankwise report`: write studies' reports again from the ledger, and a paper about them, without torch."""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rankwise.cli.console import console
from rankwise.errors import ReportError

if TYPE_CHECKING:
    from rankwise.reporting.paper.config import PaperConfig

RESOLVED = "study.resolved.json"
PAPER_FOLDER = "paper"


def report(
    studies: Annotated[
        list[str],
        typer.Argument(
            metavar="DIR|STUDY|PAPER.yaml...",
            help="Results folders of studies, or their names in the ledger; or, with --pdf, one paper file.",
        ),
    ],
    ledger: Annotated[
        str | None,
        typer.Option(envvar="RANKWISE_LEDGER", help="Ledger to read: a database URL or a file. [default: rankwise.db]"),
    ] = None,
    pdf: Annotated[bool, typer.Option("--pdf", help="Also write a LaTeX paper about them, and build it.")] = False,
    recorded: Annotated[
        bool, typer.Option("--recorded", help="With --pdf: take the reports as they are, without a ledger.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="With --pdf: folder of the paper. [default: DIR/paper; paper for several; the paper file's folder]",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as one JSON document.")] = False,
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve the page to this machine alone, fresh while the study runs.")
    ] = False,
    overview: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Draw the comparisons of all these results folders as one figure into DIR, and write nothing else.",
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of --serve; 0: any that is free.")] = 8765,
) -> None:
    """Example: rankwise report results/embedded

    Compare a study's arms and write RESULTS.md, report.html, the figures with their data, and comparison.json from
    what the ledger holds now. Trains nothing, and works on unfinished studies, too. Given a name, it writes into
    results/NAME. With --pdf it also writes a paper about one or more studies: main.tex, main.md and, where TeX is
    installed, main.pdf.
    """
    if overview is not None:
        if pdf or recorded or serve or as_json or out is not None:
            raise ReportError("--overview draws one figure from reports as they are: leave out the other options.")
        _write_overview(studies, overview)
        return
    _check(studies, pdf=pdf, recorded=recorded, out=out, as_json=as_json, serve=serve)
    if serve:
        _serve(find_study(studies[0])[1], ledger, port)
        return
    config, folder = _paper_of(studies, recorded=recorded) if pdf else (None, None)
    places = [str(one.results) for one in config.studies] if config else studies
    if not recorded:
        _write_reports(places, ledger, as_json=as_json)
    if config:
        _write_paper(config, out or folder or Path(PAPER_FOLDER))


def _check(studies: Sequence[str], *, pdf: bool, recorded: bool, out: Path | None, as_json: bool, serve: bool) -> None:
    """Raises ReportError on options that do not go together."""
    if as_json and (pdf or len(studies) > 1):
        raise ReportError("--json prints the comparison of one study: leave out --pdf, and name one study.")
    if (recorded or out is not None) and not pdf:
        raise ReportError("--recorded and --out are for papers: add --pdf.")
    if serve and (pdf or as_json or len(studies) > 1):
        raise ReportError(
            "--serve writes nothing and serves one study: leave out --pdf and --json, and name one study."
        )
    files = [place for place in studies if _is_paper_file(place)]
    if files and not (pdf and len(studies) == 1):
        raise ReportError(f"{files[0]} is a paper file: give it alone, with --pdf.")


def _is_paper_file(place: str) -> bool:
    return Path(place).suffix.lower() in (".yaml", ".yml")


def _paper_of(places: Sequence[str], *, recorded: bool) -> "tuple[PaperConfig, Path | None]":
    """What the paper is about, and the folder that it belongs into; None: no folder of any study."""
    from rankwise.reporting.paper.config import PaperConfig, PaperStudy, load_paper

    if _is_paper_file(places[0]):
        return load_paper(Path(places[0])), Path(places[0]).parent
    folders = [Path(place) if recorded else find_study(place)[0] for place in places]
    config = PaperConfig(studies=tuple(PaperStudy(results=folder) for folder in folders))
    return config, folders[0] / PAPER_FOLDER if len(folders) == 1 else None


def _write_reports(places: Sequence[str], ledger: str | None, *, as_json: bool) -> None:
    from rankwise.ledger import open_ledger
    from rankwise.reporting.write import write_report

    found = [find_study(place) for place in places]
    with open_ledger(ledger, create=False) as opened:
        results = [opened.study_results(name) for _, name in found]
    for (folder, _), one in zip(found, results, strict=True):
        files = write_report(one, folder)
        if as_json:
            console.file.write(files.comparison.read_text(encoding="utf-8"))
            return
        console.print(f"{files.verdict}\n", markup=False)
        console.print(f"report: {files.results}", markup=False, soft_wrap=True)
        console.print(f"page:   {files.page}", markup=False, soft_wrap=True)


def _write_overview(places: Sequence[str], out: Path) -> None:
    from rankwise.reporting.overview import write_overview

    drawn = write_overview([Path(place) for place in places], out)
    console.print(f"overview: {drawn.png}, {drawn.pdf}, {drawn.csv}", markup=False, soft_wrap=True)


def _write_paper(config: "PaperConfig", folder: Path) -> None:
    from rankwise.reporting.paper.build import build_pdf
    from rankwise.reporting.paper.write import write_paper

    files = write_paper(config, folder)
    for note in files.notes:
        console.print(f"note:   {note}", markup=False)
    console.print(f"paper:  {files.tex}, {files.markdown}", markup=False, soft_wrap=True)
    console.print(f"pdf:    {build_pdf(folder)}", markup=False, soft_wrap=True)


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
