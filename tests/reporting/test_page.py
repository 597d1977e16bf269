"""report.html without a browser: complete in itself, the same words and numbers as RESULTS.md, and no text that acts."""

import base64
import gzip
import hashlib
import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from rankwise.reporting.comparison import compare_arms
from rankwise.reporting.format import format_difference
from rankwise.reporting.page import render
from rankwise.reporting.page.curves import thin
from rankwise.reporting.page.facts import held_files, page_facts, runs_csv, script_json
from rankwise.reporting.page.plot import linear_scale, log_scale, plain_labels
from rankwise.reporting.page.prose import Links, sections_of
from rankwise.reporting.page.render import render_page
from rankwise.reporting.page.svg import element, marker_path, tip
from rankwise.reporting.style import MARKERS, FigureFiles
from tests.reporting.page_of import HOSTILE, write_page

ARMS = (
    {"name": "uniform", "strategy": "uniform", "rank": 8, "effect": 0.0},
    {"name": "uniform-r16", "strategy": "uniform", "rank": 16, "effect": -0.03},
    {"name": "empirical", "strategy": "empirical", "rank": 8, "effect": -0.019},
    {"name": "random", "strategy": "random", "rank": 8, "effect": 0.002},
)
VOID = {"meta", "br", "hr", "img", "input", "link"}


class Parsed(HTMLParser):
    """A document that must be balanced: elements with their attributes, texts, and table cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.scripts: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs), f"<{tag}> has an attribute twice"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        match tag:
            case "tr":
                self.rows.append([])
            case "td" | "th":
                self.rows[-1].append("")
            case "script":
                self.scripts.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        else:
            self.texts.append(data)
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def study(build_study):
    def status_of(arm, purpose, rate, seed):
        return "diverged" if (arm, purpose, seed) == ("random", "report", 3) else "finished"

    results = build_study(ARMS, num_seeds=3, num_layers=2, status_of=status_of)
    first, second = {"torch": "2.13.0", "device": "cpu"}, {"torch": "2.14.0", "device": "cpu"}
    runs = tuple(replace(run, spec={"seed": run.seed, "arm": {"strategy": run.strategy}}) for run in results.runs)
    sessions = {run.id: second if run.purpose == "report" else first for run in runs}
    return replace(results, runs=runs, environments=sessions)


@pytest.fixture(scope="module")
def folder(study, tmp_path_factory):
    return write_page(study, tmp_path_factory.mktemp("page") / "out").parent


@pytest.fixture(scope="module")
def text(folder):
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def parsed(text):
    return Parsed(text)


def test_nothing_is_loaded_from_anywhere(text, parsed):
    for tag, attributes in parsed.elements:
        for name in ("src", "href", "action", "poster", "data", "srcset"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:image/png")), (tag, name, value)
    assert {tag for tag, _ in parsed.elements}.isdisjoint({"link", "iframe", "object", "embed", "base"})
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    assert "url(" not in style
    assert "@import" not in style


def test_the_policy_allows_exactly_this_style_and_this_script(text, parsed):
    policy = next(a["content"] for _, a in parsed.elements if a.get("http-equiv") == "Content-Security-Policy")
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]

    def hash_of(code):
        return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"

    assert f"style-src {hash_of(style)};" in policy
    assert f"script-src {hash_of(parsed.scripts[-1])};" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert not [a for _, a in parsed.elements if "style" in a or any(name.startswith("on") for name in a)]


def test_every_table_of_the_report_is_on_the_page(folder, parsed):
    lines = (folder / "RESULTS.md").read_text(encoding="utf-8").splitlines()
    cells = [[plain(cell) for cell in line[2:-2].split(" | ")] for line in lines if line.startswith("| ")]
    expected = [row for row in cells if set("".join(row)) - set("-:")]
    assert len(expected) > 40
    assert parsed.rows == expected


def plain(cell):
    return html.unescape(re.sub(r"<[^>]+>|\*\*|`", "", cell)).strip()


def test_every_sentence_of_the_report_is_on_the_page(folder, parsed):
    words = " ".join(" ".join(parsed.texts).split())
    lines = (folder / "RESULTS.md").read_text(encoding="utf-8").splitlines()
    prose = [line.removeprefix("- ") for line in lines if line and line[0] not in "#|!*`<["]
    assert len(prose) > 40
    for line in prose:
        for part in re.split(r"\*\*|`|</?code>|\[[^]]+\]\([^)]+\)", line):
            assert " ".join(html.unescape(part).split()) in words


def test_figures_hold_the_numbers_of_the_comparison(study, text):
    comparison = compare_arms(study)
    shown = html.unescape(text)
    for arm in comparison.arms:
        if arm.difference:
            assert f"{arm.name}\n{format_difference(arm.difference.estimate)} nats" in shown
        for point in arm.tuning:
            assert f"mean validation loss {point.mean:.4f}, n = 2" in shown
        assert f"test loss {arm.test_loss.value:.4f} [" in shown
    site = study.reported("uniform")[0].sites[0]
    assert f"{site.site}\nrank 8, planned 8, before training 8\nscale 2, {site.params:,} parameters" in shown


def test_each_figure_is_drawn_once_and_has_a_name(parsed):
    figures = [a["data-figure"] for tag, a in parsed.elements if tag == "figure"]
    assert figures == [
        "differences", "loss_against_params", "predictions", "rank_maps", "signals", "learning_curves", "stability",
        "tuning",
    ]  # fmt: skip
    drawings = [a for tag, a in parsed.elements if tag == "svg" and a.get("role") == "img"]
    assert len(drawings) > 15
    assert all(a["aria-label"] and a["tabindex"] == "0" for a in drawings)


def test_ids_are_unique_and_every_link_leads_somewhere(study, parsed):
    ids = [a["id"] for _, a in parsed.elements if a.get("id")]
    assert len(set(ids)) == len(ids)
    runs = {f"run-{run.id}" for run in study.runs}
    for tag, attributes in parsed.elements:
        if tag == "a":
            assert attributes["href"][1:] in {*ids, *runs}


def test_arms_and_runs_can_be_followed_from_their_names(study, text):
    assert text.count('href="#arm-2"') >= 6
    for run in study.runs:
        assert f'<a class="run" href="#run-{run.id}"><code>{run.id}</code></a>' in text


def test_each_run_has_its_configuration_environment_and_ranks(study, parsed):
    document = json.loads(parsed.scripts[0])
    assert set(document["runs"]) == {run.id for run in study.runs}
    for run in study.runs:
        (row,) = document["runs"][run.id]
        found = dict(zip(document["run_columns"], row, strict=True))
        assert document["configurations"][found["configuration"]] == {"arm": {"strategy": run.strategy}}
        expected = "2.14.0" if run.purpose == "report" else "2.13.0"
        assert document["environments"][found["environment"]]["torch"] == expected
        assert found.get("test_loss") == run.scores.get("test_loss")
        maps = document["maps"]["arms"][study.arm_names.index(run.arm)]
        number = next(other["map"] for other in maps["runs"] if other["id"] == run.id)
        assert maps["maps"][number]["final"] == list(run.spent_ranks)
    assert len(document["configurations"]) == 3
    assert len(document["environments"]) == 2


def test_the_held_files_are_those_of_the_folder(study, folder, parsed):
    held = [a["data-name"] for tag, a in parsed.elements if tag == "script" and a.get("class") == "file"]
    files = {name: unpack(code) for name, code in zip(held, parsed.scripts[1:-1], strict=True)}
    assert files["comparison.json"] == (folder / "comparison.json").read_text(encoding="utf-8")
    assert files["runs.csv"] == runs_csv(study)
    assert len(files["runs.csv"].splitlines()) == 1 + len(study.runs)
    assert files["figures/tuning.csv"] == "name\ntuning\n"
    offered = {a["data-file"] for _, a in parsed.elements if "data-file" in a}
    assert offered == set(held)


def unpack(code):
    return gzip.decompress(base64.b64decode(code)).decode()


def test_the_largest_data_are_left_out_first(study, tmp_path):
    rng = np.random.default_rng(0)
    for name, size in (("small", 10), ("large", 9000)):
        (tmp_path / f"{name}.csv").write_text(rng.bytes(size).hex())
    figures = [FigureFiles(name=name, caption="", folder=tmp_path) for name in ("small", "large")]
    held = held_files("{}", study, figures, limit_bytes=10_000)
    assert set(held) == {"comparison.json", "runs.csv", "figures/small.csv"}


def test_the_same_study_gives_the_same_page(study, text, tmp_path):
    assert write_page(study, tmp_path / "again").read_text(encoding="utf-8") == text


def test_hostile_texts_stay_texts(build_study, tmp_path):
    study = build_study((ARMS[0], {**ARMS[2], "name": HOSTILE}), num_seeds=2, num_layers=1)
    study = replace(
        study,
        name="a</title><script>alert(2)</script>",
        hypothesis="<img src=x onerror=alert(3)> [link](javascript:alert(4)) ![i](figures/tuning.png) <details>",
        environment={"command": HOSTILE, "<b>": "</script><script>alert(5)</script>"},
        data_summary={"<i>": {"<u>": 3}},
    )
    text = write_page(study, tmp_path / "out").read_text(encoding="utf-8")
    parsed = Parsed(text)
    tags = [tag for tag, _ in parsed.elements]
    assert set(tags).isdisjoint({"img", "i", "u", "b"})
    assert sum(a.get("type") is None for tag, a in parsed.elements if tag == "script") == 1
    assert "alert" not in parsed.scripts[-1]
    assert json.loads(parsed.scripts[0])["arms"][1]["name"] == HOSTILE
    shown = " ".join(parsed.texts)
    assert "<script>alert(1)</script>" in shown
    assert "[link](javascript:alert(4))" in shown
    assert "\x1b" not in text.replace("\\u001b", "")
    assert not [a for _, a in parsed.elements if any(name.startswith("on") for name in a)]


def test_markup_that_no_part_of_the_report_writes_is_shown_as_text():
    links = Links(arms={"a": 0}, run_ids=frozenset({"0123"}), figures={}, files=frozenset({"comparison.json"}))
    markdown = (
        "# t\n\nx <script>alert(1)</script> <code>0123</code> <CODE onclick=x>\n\n<div>block</div>\n\n"
        "[go](https://example.org) [all](comparison.json)\n\n<details>\n<summary>More</summary>\n\n**a** b\n\n</details>\n"
    )
    (section,) = sections_of(markdown, links)
    assert section.body == (
        '<p>x &lt;script&gt;alert(1)&lt;/script&gt; <a class="run" href="#run-0123"><code>0123</code></a> '
        "&lt;CODE onclick=x&gt;</p>\n"
        "<p>&lt;div&gt;block&lt;/div&gt;</p>"
        '<p><span>go</span> <button type="button" data-file="comparison.json">all</button></p>\n'
        '<details>\n<summary>More</summary><p><strong><a class="arm" href="#arm-0">a</a></strong> b</p>\n</details>'
    )


@pytest.mark.parametrize("status", ["pending", "running", "failed", "diverged"])
def test_a_study_without_results_has_a_page(build_study, tmp_path, status):
    study = build_study(ARMS[:2], num_seeds=2, num_layers=1, status_of=lambda *_: status)
    parsed = Parsed(write_page(study, tmp_path / "out").read_text(encoding="utf-8"))
    assert "Nothing can be said yet" in " ".join(parsed.texts)


def test_one_arm_and_one_seed_have_a_page(build_study, tmp_path):
    study = build_study(ARMS[:1], num_seeds=1, num_layers=1, rates=(1e-3,))
    text = write_page(study, tmp_path / "out").read_text(encoding="utf-8")
    assert "one arm, so there is nothing to compare" in " ".join(Parsed(text).texts)


def test_a_figure_that_the_page_does_not_draw_is_its_picture(study, folder, tmp_path):
    (tmp_path / "new.png").write_bytes(b"\x89PNG\r\n")
    (tmp_path / "new.csv").write_text("a,b\n1,2\n")
    figure = FigureFiles(name="new", caption="What <is> new.", folder=tmp_path)
    markdown = "# t\n\n## Part\n\n![new](figures/new.png)\n\n*What &lt;is&gt; new.* [data](figures/new.csv)\n\nMore.\n"
    page = render_page(study, compare_arms(study), markdown, [figure], comparison_text="{}")
    assert '<img src="data:image/png;base64,iVBORw0K" alt="What &lt;is&gt; new." class="picture">' in page
    assert '<figcaption>What &lt;is&gt; new. <button type="button" data-file="figures/new.csv">' in page
    assert "<p>More.</p>" in page
    Parsed(page)


def test_the_largest_drawings_become_pictures_where_the_page_would_be_too_large(study, tmp_path, monkeypatch):
    for name in ("rank_maps", "tuning"):
        (tmp_path / f"{name}.png").write_bytes(b"\x89PNG\r\n")
    figures = [FigureFiles(name=name, caption=name, folder=tmp_path) for name in ("rank_maps", "tuning")]
    markdown = "# t\n\n" + "".join(f"## {f.name}\n\n![x](figures/{f.name}.png)\n\n*{f.name}*\n\n" for f in figures)
    comparison = compare_arms(study)
    whole = render_page(study, comparison, markdown, figures, comparison_text="{}")
    assert whole.count('class="picture"') == 0
    room = len(script_json(page_facts(study, comparison))) + 3 * len(markdown) + len(whole) // 5
    monkeypatch.setattr(render, "MOST_BYTES", room)
    smaller = render_page(study, comparison, markdown, figures, comparison_text="{}")
    assert smaller.count('class="picture"') == 1
    assert "rank_maps A picture only" in smaller
    assert len(smaller) < len(whole) - 10_000


def test_arms_of_many_budgets_are_shown_with_their_front(build_study, tmp_path):
    arms = [{"name": f"r{rank}", "strategy": "uniform", "rank": rank, "effect": -rank / 1e3} for rank in (2, 4, 8, 16)]
    text = write_page(build_study(tuple(arms), num_seeds=3, num_layers=1), tmp_path / "out").read_text(encoding="utf-8")
    assert 'data-figure="pareto"' in text
    assert "r16\nstored parameters (thousands): " in text
    assert "on the front in 100% of the resamples" in text


def test_json_for_a_script_ends_no_script_and_has_no_nan():
    document = {"a": "</script><!-- &\u2028", "b": [float("nan"), (1.5, float("inf"))], "c": {1: None}}
    written = script_json(document)
    assert not set(written) & set("<>&\u2028")
    assert json.loads(written) == {"a": document["a"], "b": [None, [1.5, None]], "c": {"1": None}}


def test_elements_escape_text_and_attributes():
    made = element("text", 'a < "b"\n&', tip("<i>", "", "two"), class_='x"y', data_arm=3, gone=None, x=1.26, y=-0.01)
    assert made == (
        '<text class="x&#34;y" data-arm="3" x="1.3" y="0">a &lt; &#34;b&#34; &amp;<title>&lt;i&gt;\ntwo</title></text>'
    )


def test_markers_are_distinct_and_around_their_point():
    paths = {kind: marker_path(kind, 50.0, 60.0, 4.0) for kind in ("o", *MARKERS)}
    assert len(set(paths.values())) == len(paths)
    for path in (paths[kind] for kind in MARKERS):
        points = np.array([[float(n) for n in pair.split(",")] for pair in re.findall(r"[\d.]+,[\d.]+", path)])
        assert np.allclose(points.mean(axis=0), (50, 60), atol=0.1)
        assert np.hypot(*(points - (50, 60)).T).max() <= 4.5


def test_scales_map_ends_and_middles():
    scale = linear_scale([1.0, 3.0], 100.0, 0.0, margin_frac=0.0)
    assert [scale(value) for value in (1.0, 2.0, 3.0)] == [100.0, 50.0, 0.0]
    assert plain_labels(scale.ticks()) == ["1.0", "1.5", "2.0", "2.5", "3.0"]
    log = log_scale([1e-3, 1e-1], 0.0, 100.0, margin_frac=0.0)
    assert log(1e-2) == pytest.approx(50.0)
    assert all(1e-3 <= tick <= 1e-1 for tick in log.ticks())
    lone = linear_scale([2.0], 0.0, 10.0)
    assert lone(2.0) == pytest.approx(5.0)
    assert linear_scale([0.0, 0.0], 0.0, 10.0)(0.0) == pytest.approx(5.0)


def test_thinning_keeps_both_ends_and_the_order():
    steps = np.arange(1000)
    kept, values = thin((steps, steps**2), 50)
    assert (len(kept), kept[0], kept[-1]) == (50, 0, 999)
    assert (values == kept**2).all()
    assert thin((steps[:50], steps[:50]), 50)[0] is not None
    assert len(thin((steps[:50], steps[:50]), 50)[0]) == 50
