"""The structure of a paper, without TeX: nothing is used that is not defined, and no number comes from elsewhere."""

import html
import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from rankwise.errors import ReportError
from rankwise.reporting.format import format_difference, format_estimate
from rankwise.reporting.paper.config import PaperConfig, PaperStudy
from rankwise.reporting.paper.write import write_paper
from rankwise.reporting.recorded import read_comparison

ROOT = Path(__file__).parents[3]


def config_of(*folders, **settings):
    return PaperConfig(studies=tuple(PaperStudy(results=folder) for folder in folders), **settings)


@pytest.fixture(scope="module")
def paper(recorded, tmp_path_factory):
    return write_paper(config_of(recorded, authors=("A. Nobody",)), tmp_path_factory.mktemp("paper")).folder


@pytest.fixture(scope="module")
def hostile_paper(hostile, recorded, tmp_path_factory):
    return write_paper(config_of(hostile, recorded), tmp_path_factory.mktemp("hostile")).folder


def tex_of(folder):
    return "".join(path.read_text(encoding="utf-8") for path in [folder / "main.tex", *(folder / "tables").iterdir()])


@pytest.mark.parametrize("which", ["paper", "hostile_paper"])
def test_whatever_is_used_is_defined(which, request):
    folder = request.getfixturevalue(which)
    tex = tex_of(folder)
    macros = (folder / "macros.tex").read_text(encoding="utf-8")
    body = tex.split("\\begin{document}")[1]
    used = set(re.findall(r"\\rw\{([^}]*)\}", body))
    assert len(used) > 15
    assert used <= set(re.findall(r"^\\rwset\{([^}]*)\}", macros, re.M))
    labels = Counter(re.findall(r"\\label\{([^}]*)\}", tex))
    assert set(re.findall(r"\\ref\{([^}]*)\}", tex)) <= set(labels)
    assert max(labels.values()) == 1
    keys = {key for found in re.findall(r"\\citep\{([^}]*)\}", tex) for key in found.split(",")}
    assert len(keys) > 15
    assert keys <= set(re.findall(r"^@\w+\{([^,]+),", (folder / "references.bib").read_text(encoding="utf-8"), re.M))
    assert all((folder / f"{name}.tex").is_file() for name in re.findall(r"\\input\{([^}]*)\}", tex))
    assert all(
        (folder / "figures" / f"{name}.pdf").is_file() for name in re.findall(r"\\includegraphics.*\{(.*)\}", tex)
    )


@pytest.mark.parametrize("which", ["paper", "hostile_paper"])
def test_groups_close_and_nothing_is_left_unescaped(which, request):
    folder = request.getfixturevalue(which)
    for text in (tex_of(folder), (folder / "macros.tex").read_text(encoding="utf-8")):
        bare = re.sub(r"\\[\\{}$&#%_]", "", re.sub(r"^%.*|(?<=\n)%.*", "", text))
        assert bare.count("{") == bare.count("}")
        assert not re.search(r"\b(None|nan|NaN|inf)\b", bare)
    macros = (folder / "macros.tex").read_text(encoding="utf-8")
    values = re.findall(r"^\\rwset\{[A-Za-z0-9._-]+\}\{(.*)\}$", macros, re.M)
    assert len(values) == macros.count("\n") - 1
    assert not any(set(re.sub(r"\\[$&#%_]", "", value)) & set("$&#%_^~\n") - set("^") for value in values)
    for forbidden in (r"\input{/etc", r"\write18", r"\end{document} ", r"\evil"):
        assert forbidden not in tex_of(folder)
        assert forbidden not in macros


def test_every_number_in_the_main_table_is_one_of_the_comparison(paper, recorded):
    comparison = read_comparison(recorded)
    expected = {format_difference(arm.difference.estimate) for arm in comparison.arms if arm.difference}
    table = (paper / "tables" / "main-synthetic.tex").read_text(encoding="utf-8")
    shown = table.replace(r"\ensuremath{-}", "−").replace("{[}", "[").replace("{]}", "]")
    assert all(difference in shown for difference in expected)
    decimals = set(re.findall(r"\d\.\d{4}", shown))
    known = " ".join(map(str, expected | {format_estimate(arm.test_loss) for arm in comparison.arms}))
    assert decimals
    assert all(number in known for number in decimals)


def test_markdown_says_the_same_without_tex(paper, recorded):
    text = html.unescape((paper / "main.md").read_text(encoding="utf-8"))
    comparison = read_comparison(recorded)
    assert all(format_difference(arm.difference.estimate) in text for arm in comparison.arms if arm.difference)
    assert "{{" not in text
    assert "(Hu et al., 2022)" in text
    assert "Table 3" in text
    links = re.findall(r"!\[[^\]]*\]\(<([^>]+)>\)", text)
    assert [(paper / link).resolve() for link in links] == [recorded / "figures" / "differences.png"]


def test_run_ids_and_hashes_are_in_the_paper(paper, recorded):
    ids = [run for arm in read_comparison(recorded).arms for run in arm.run_ids]
    table = (paper / "tables" / "runs-synthetic.tex").read_text(encoding="utf-8")
    assert len(ids) == 48
    assert all(run in table for run in ids)
    assert len(re.findall(r"\b[0-9a-f]{64}\b", (paper / "macros.tex").read_text(encoding="utf-8"))) == 1


def test_the_same_reports_give_the_same_paper(paper, recorded, tmp_path):
    again = write_paper(config_of(recorded, authors=("A. Nobody",)), tmp_path / "again").folder
    for name in ("main.tex", "macros.tex", "digest.tex", "references.bib", "tables/main-synthetic.tex"):
        assert (again / name).read_bytes() == (paper / name).read_bytes()


def test_studies_of_one_name_are_told_apart(recorded, record, tmp_path):
    other = record(tmp_path / "other", num_seeds=2, num_layers=2)
    folder = write_paper(config_of(recorded, other), tmp_path / "paper").folder
    macros = (folder / "macros.tex").read_text(encoding="utf-8")
    assert r"\rwset{synthetic.num_seeds}{8}" in macros
    assert r"\rwset{synthetic-2.num_seeds}{2}" in macros


def test_hand_written_prose_is_found_beside_the_report(recorded, tmp_path):
    folder = shutil.copytree(recorded, tmp_path / "synthetic")
    (folder / "discussion.md").write_text("It moved by {{synthetic.empirical.difference}}.", encoding="utf-8")
    assert r"\rw{synthetic.empirical.difference}." in tex_of(write_paper(config_of(folder), tmp_path / "paper").folder)


def test_prose_that_no_longer_fits_says_so(recorded, tmp_path):
    text = tmp_path / "text.md"
    text.write_text("<!-- expects: synthetic.empirical.outcome = worse -->\nIt is worse.", encoding="utf-8")
    config = PaperConfig(studies=(PaperStudy(results=recorded, discussion=text),))
    files = write_paper(config, tmp_path / "paper")
    (note,) = files.notes
    assert "text.md" in note
    assert "synthetic.empirical.outcome was “worse” and is now “better”" in note
    assert "was written for other results" in tex_of(files.folder)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{{synthetic.emprical.difference}}", ["no value {{synthetic.emprical.difference}}", "synthetic.empirical."]),
        ("<!-- expects: synthetic.nothing = 1 -->", ["no value {{synthetic.nothing}}"]),
        ("[@hu2022lore]", ["[@hu2022lore]", "hu2022lora"]),
        ("[@tab:main-x]", ["[@tab:main-x]", "tab:main-synthetic"]),
    ],
)
def test_what_prose_names_must_exist(recorded, tmp_path, text, words):
    path = tmp_path / "discussion.md"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ReportError) as caught:
        write_paper(config_of(recorded, sections={"discussion": path}), tmp_path / "paper")
    assert all(word in str(caught.value) for word in words), caught.value
    assert not (tmp_path / "paper").exists()


def test_a_figure_that_no_report_has_is_refused(recorded, tmp_path):
    with pytest.raises(ReportError, match=r"no report has a figure “tunning”; there are differences, .*tuning"):
        write_paper(config_of(recorded, figures=("tunning",)), tmp_path / "paper")


def test_what_strategies_saw_and_did_is_in_the_appendix_and_what_was_predicted_with_what_reproduces(record, tmp_path):
    folders = [record(tmp_path / name, name=name, num_seeds=2, num_layers=1) for name in ("one", "two")]
    for folder in folders:
        for name in ("signals", "ranks_over_time", "predictions"):
            shutil.copy(folder / "figures" / "differences.pdf", folder / "figures" / f"{name}.pdf")

    def places(*given):
        tex = write_paper(config_of(*given), tmp_path / f"paper{len(given)}").tex.read_text(encoding="utf-8")
        start, appendix = tex.index("sec:reproducibility}"), tex.index("\\appendix")
        figures = re.findall(r"\\includegraphics.*\{([a-z-]+)-(one|two)\}", tex)
        return {
            f"{name}-{study}": "appendix" if at > appendix else "reproducibility" if at > start else "main"
            for name, study in figures
            for at in [tex.index(f"{{{name}-{study}}}")]
        }

    single, both = places(folders[0]), places(*folders)
    assert single == {
        "differences-one": "main", "predictions-one": "reproducibility",
        "signals-one": "appendix", "ranks-over-time-one": "appendix",
    }  # fmt: skip
    assert {place for name, place in both.items() if name.startswith("predictions")} == {"appendix"}
    assert len(both) == 8


def test_an_unfinished_study_says_what_is_missing(record, tmp_path):
    def status_of(arm, purpose, rate, seed):
        return "pending" if arm == "empirical" and purpose == "report" else "finished"

    folder = record(tmp_path / "half", num_seeds=3, num_layers=2, status_of=status_of)
    files = write_paper(config_of(folder), tmp_path / "paper")
    assert files.notes == ("synthetic: Unfinished. 3 of 18 reported runs are missing: empirical (3).",)
    assert r"\rw{synthetic.missing}" in tex_of(files.folder)


def test_a_study_without_arms_or_runs_gives_a_paper_all_the_same(record, recorded, tmp_path):
    empty = record(tmp_path / "empty", num_seeds=2, num_layers=2, tuned=False, status_of=lambda *_: "pending")
    none = shutil.copytree(recorded, tmp_path / "none")
    document = json.loads((none / "comparison.json").read_text()) | {"arms": [], "family": []}
    (none / "comparison.json").write_text(json.dumps(document))
    files = write_paper(config_of(empty, none), tmp_path / "paper")
    macros = (files.folder / "macros.tex").read_text(encoding="utf-8")
    assert "Nothing can be said yet: no reported run has finished." in macros
    assert "The study has no arm, so nothing can be said." in macros


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        ("{", "JSONDecodeError"),
        ("[]", "not a comparison"),
        ("{}", "study: Field required"),
        ('{"study": 3}', "study"),
        ("[" * 100_000, "is not a comparison"),
    ],
)
def test_a_folder_without_a_comparison_is_refused(tmp_path, content, words):
    folder = tmp_path / "results"
    folder.mkdir()
    if content is not None:
        (folder / "comparison.json").write_text(content)
    with pytest.raises(ReportError, match=re.escape(words)):
        write_paper(config_of(folder), tmp_path / "paper")
    assert not (tmp_path / "paper").exists()


def test_a_folder_that_cannot_be_written_is_refused(recorded, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ReportError, match="the paper cannot be written"):
        write_paper(config_of(recorded), tmp_path / "file" / "paper")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "docs" / "results").glob("*/comparison.json")), ids=lambda p: p.parent.name
)
def test_every_recorded_comparison_can_be_read(path):
    comparison = read_comparison(path.parent)
    assert comparison.arms
    assert comparison.arm(comparison.baseline).test_loss
