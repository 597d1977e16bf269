"""main.tex to main.pdf, with whatever TeX is installed. TeX runs in a copy of the folder and without shell escape."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from rankwise.errors import ReportError
from rankwise.reporting.paper.digest import digest_in_pdf, digest_in_tex

TIMEOUT_S = 600
SOURCES = ("main.tex", "macros.tex", "digest.tex", "references.bib", "tables", "figures")
INSTALL = (
    "Install TeX (Debian: apt-get install latexmk texlive-latex-recommended texlive-fonts-recommended; or the single "
    "program tectonic)"
)
ENGINES = {
    "latexmk": (
        "latexmk", "-norc", "-pdf", "-pdflatex=pdflatex -no-shell-escape %O %S", "-interaction=nonstopmode",
        "-halt-on-error", "-file-line-error", "main.tex",
    ),
    "tectonic": ("tectonic", "--untrusted", "--keep-logs", "main.tex"),
}  # fmt: skip
"""Program -> its command line; the first that is installed is taken."""


def build_pdf(folder: Path) -> Path:
    """Build `folder`/main.tex and return main.pdf beside it.

    Raises ReportError where no TeX is installed, or where it fails: main.log then lies beside main.tex.
    """
    engine = next((name for name in ENGINES if shutil.which(name)), None)
    if engine is None:
        raise ReportError(
            f"{folder / 'main.tex'} is written and complete, but there is no latexmk and no tectonic here to make a "
            f"PDF of it. {INSTALL} and give the same command again, or read main.md.{_about_old_pdf(folder)}"
        )
    try:
        with TemporaryDirectory(prefix=".build-", dir=folder) as work:
            return _build(engine, folder, Path(work))
    except OSError as error:
        raise ReportError(
            f"{folder}: the PDF cannot be built ({error.strerror or error}). Make room, or name another folder with "
            "--out; main.tex is complete."
        ) from error


def _about_old_pdf(folder: Path) -> str:
    pdf = folder / "main.pdf"
    if not pdf.exists() or digest_in_pdf(pdf) == digest_in_tex(folder):
        return ""
    return " The main.pdf beside it is of an earlier text."


def _build(engine: str, folder: Path, work: Path) -> Path:
    for name in SOURCES:
        source = folder / name
        if source.is_dir():
            shutil.copytree(source, work / name)
        elif source.exists():
            shutil.copy(source, work / name)
    # The same sources give the same bytes on any day.
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "0", "FORCE_SOURCE_DATE": "1"}
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command line
            ENGINES[engine], cwd=work, env=environment, capture_output=True, timeout=TIMEOUT_S, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ReportError(
            f"{folder / 'main.tex'}: {engine} was stopped after {TIMEOUT_S} s. main.tex is complete; build it by hand "
            "to see where it waits."
        ) from None
    pdf = work / "main.pdf"
    if done.returncode or not pdf.exists():
        log = work / "main.log"
        text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        text = text or (done.stdout + done.stderr).decode("utf-8", errors="replace")
        (folder / "main.log").write_text(text, encoding="utf-8")
        raise ReportError(
            f"{folder / 'main.tex'} is written and complete, but {engine} could not build it: {_first_error(text)} "
            f"The whole log is {folder / 'main.log'}. A missing file ending in .sty or .bst means that a part of "
            f"TeX is not installed. {INSTALL}.{_about_old_pdf(folder)}"
        )
    pdf.replace(folder / "main.pdf")
    (folder / "main.log").unlink(missing_ok=True)
    return folder / "main.pdf"


def _first_error(log: str) -> str:
    """The first complaint in a log of TeX, on one line."""
    match = re.search(r"^(?:! |\S+\.(?:tex|bbl):\d+: )(.*)$", log, re.MULTILINE)
    return f"{match[0].strip().rstrip('.')}." if match else "it gave no reason."
