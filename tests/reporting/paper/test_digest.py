import zlib

import pytest

from rankwise.errors import ReportError
from rankwise.reporting.paper import build
from rankwise.reporting.paper.build import build_pdf
from rankwise.reporting.paper.config import PaperConfig, PaperStudy
from rankwise.reporting.paper.digest import digest_in_pdf, digest_in_tex, digest_of
from rankwise.reporting.paper.write import compose_paper, stale_files, write_paper

DIGEST = "0123456789abcdef" * 4
IN_UTF_16 = b"\\376\\377" + b"".join(b"\\000" + char.encode() for char in DIGEST)


@pytest.fixture
def config(record, tmp_path):
    return PaperConfig(studies=(PaperStudy(results=record(tmp_path / "study", num_seeds=2, num_layers=2)),))


def test_names_and_contents_make_the_digest():
    assert digest_of({"a": b"1", "b": b"2"}) == digest_of({"b": b"2", "a": b"1"})
    others = [{"a": b"1"}, {"a": b"2", "b": b"1"}, {"a": b"12", "b": b""}, {"ab": b"1", "": b"2"}]
    assert len({digest_of(sources) for sources in [{"a": b"1", "b": b"2"}, *others]}) == 5


@pytest.mark.parametrize(
    "pdf",
    [
        b"%PDF /RankwiseSources (" + DIGEST.encode() + b") >>",
        b"%PDF /RankwiseSources(" + IN_UTF_16 + b")\n",
        b"%PDF stream\nnot deflated stream\r\n" + zlib.compress(b"<< /RankwiseSources(" + IN_UTF_16 + b") >>"),
    ],
    ids=["plain", "utf-16", "compressed"],
)
def test_a_pdf_says_what_it_was_made_from(pdf, tmp_path):
    (tmp_path / "main.pdf").write_bytes(pdf)
    assert digest_in_pdf(tmp_path / "main.pdf") == DIGEST


@pytest.mark.parametrize("pdf", [b"%PDF", b"", None])
def test_a_pdf_of_another_program_says_nothing(pdf, tmp_path):
    if pdf is not None:
        (tmp_path / "main.pdf").write_bytes(pdf)
    assert digest_in_pdf(tmp_path / "main.pdf") is None


def test_whatever_changes_makes_the_paper_stale(config, tmp_path):
    out = tmp_path / "paper"
    written = compose_paper(config, write_paper(config, out).folder)
    assert digest_in_tex(out) == written.digest
    assert stale_files(config, out) == ["main.pdf"]  # not built yet
    (out / "main.pdf").write_bytes(f"/RankwiseSources({written.digest})".encode())
    assert stale_files(config, out) == []
    with (tmp_path / "study" / "figures" / "differences.pdf").open("ab") as drawing:
        drawing.write(b"%")
    assert stale_files(config, out) == ["main.pdf"]
    assert stale_files(config.model_copy(update={"title": "Another"}), out) == ["main.md", "main.pdf"]


def test_without_tex_an_older_pdf_is_named_as_such(config, tmp_path, monkeypatch):
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    out = write_paper(config, tmp_path / "paper").folder
    with pytest.raises(ReportError) as caught:
        build_pdf(out)
    assert "main.pdf" not in str(caught.value)
    (out / "main.pdf").write_bytes(b"%PDF of yesterday")
    with pytest.raises(ReportError, match=r"The main\.pdf beside it is of an earlier text"):
        build_pdf(out)
