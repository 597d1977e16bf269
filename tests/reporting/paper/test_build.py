import shutil

import pytest

from rankwise.errors import ReportError
from rankwise.reporting.paper import build
from rankwise.reporting.paper.build import build_pdf
from rankwise.reporting.paper.config import PaperConfig, PaperStudy
from rankwise.reporting.paper.write import stale_files, write_paper

needs_tex = pytest.mark.skipif(
    not (shutil.which("latexmk") or shutil.which("tectonic")), reason="no TeX here: needs latexmk or tectonic"
)


@needs_tex
def test_a_paper_about_hostile_names_builds(hostile, tmp_path):
    config = PaperConfig(studies=(PaperStudy(results=hostile),))
    folder = write_paper(config, tmp_path).folder
    pdf = build_pdf(folder)
    assert stale_files(config, folder) == []
    assert pdf == folder / "main.pdf"
    assert pdf.read_bytes().startswith(b"%PDF-")
    assert not (folder / "main.log").exists()
    assert {path.name for path in folder.iterdir()} == {
        "main.tex", "main.md", "main.pdf", "macros.tex", "digest.tex", "references.bib", "tables", "figures",
    }  # fmt: skip


@needs_tex
def test_what_tex_complains_of_is_said_and_its_log_kept(tmp_path):
    (tmp_path / "main.tex").write_text("\\documentclass{article}\\begin{document}\\nonsense\\end{document}")
    with pytest.raises(ReportError, match="Undefined control sequence") as caught:
        build_pdf(tmp_path)
    assert str(tmp_path / "main.log") in str(caught.value)
    assert "nonsense" in (tmp_path / "main.log").read_text()


def test_without_tex_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    with pytest.raises(ReportError, match=r"main.tex is written and complete.*apt-get install latexmk"):
        build_pdf(tmp_path)
