"""The page of a study on this machine's loopback, made anew from the ledger whenever that has changed.

For watching a study that runs: nothing is written, and nothing but the page and its version is served. The version is
the hash of what the page would be made from, so that asking for it is cheap.
"""

from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from rankwise.errors import ReportError
from rankwise.evidence import digest
from rankwise.ledger import Ledger
from rankwise.ledger.results import StudyResults
from rankwise.reporting.comparison import compare_arms
from rankwise.reporting.document import render_results
from rankwise.reporting.numbers import comparison_json
from rankwise.reporting.page.render import FIGURES, render_page
from rankwise.reporting.style import FigureFiles

HOST = "127.0.0.1"
NAMES = frozenset({HOST, "localhost"})
"""Only these may be asked for: a page of another site whose name is made to point here gets nothing."""


class LivePage:
    """The page of one study, kept until the ledger has something new."""

    def __init__(self, ledger: Ledger, study: str) -> None:
        self._ledger, self._study = ledger, study
        self._version, self._text = "", ""

    def version(self) -> str:
        """Changes with the runs' states and scores, with the chosen learning rates, and with nothing else."""
        results = self._ledger.study_results(self._study, with_details=False)
        runs = [[run.id, run.status, run.error, dict(run.scores)] for run in results.runs]
        return digest([dict(results.chosen_learning_rates), runs])

    def text(self) -> str:
        """report.html as `rankwise report` would write it now, but for the files to download that are not on disk."""
        version = self.version()
        if version != self._version:
            self._text = _render(self._ledger.study_results(self._study), version)
            self._version = version
        return self._text


def _render(results: StudyResults, version: str) -> str:
    comparison = compare_arms(results)
    nowhere = Path("not-written")
    drawn = [name for name, draw in FIGURES.items() if draw(results, comparison)]
    figures = [FigureFiles(name=name, caption="", folder=nowhere) for name in drawn]
    markdown = render_results(results, comparison, figures, command=results.environment.get("command"))
    return render_page(
        results,
        comparison,
        markdown,
        figures,
        comparison_text=comparison_json(comparison),
        live_version=version,
    )


def open_server(page: LivePage, port: int) -> HTTPServer:
    """A server that waits for `serve_forever`, and is closed by leaving its context. Port 0 takes any that is free.

    Raises ReportError where the port cannot be had.
    """
    try:
        return HTTPServer((HOST, port), _handler(page))
    except OSError as error:
        raise ReportError(
            f"port {port} of this machine cannot be used ({error.strerror or error}). Choose another with --port, or "
            "any that is free with --port 0."
        ) from error


def _handler(page: LivePage) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.headers.get("Host", "").rsplit(":", 1)[0]
            path = self.path.split("?")[0]
            if name not in NAMES or path not in ("/", "/version"):
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            text, kind = (page.text(), "text/html") if path == "/" else (page.version(), "text/plain")
            body = text.encode()
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing: the terminal belongs to the address."""

    return Handler
