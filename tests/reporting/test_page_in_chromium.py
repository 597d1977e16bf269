"""report.html in a real browser: it says nothing on the console, asks nothing of any network, and does what it offers."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rankwise.records import RanksRevised
from tests.reporting.browser import CHROMIUM, chromium
from tests.reporting.page_of import HOSTILE, write_page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian's package chromium)")

ARMS = (
    {"name": "uniform", "strategy": "uniform", "rank": 8, "effect": 0.0},
    {"name": "uniform-r16", "strategy": "uniform", "rank": 16, "effect": -0.03},
    {"name": "linear_decay", "strategy": "linear_decay", "rank": 8, "effect": 0.016},
    {"name": "empirical", "strategy": "empirical", "rank": 8, "effect": -0.019},
    {"name": HOSTILE, "strategy": "random", "rank": 8, "effect": 0.002},
)
RESULTS = "#results .table table"


@pytest.fixture(scope="module")
def study(build_study):
    results = build_study(ARMS, num_seeds=3, num_layers=2)
    return replace(
        results,
        hypothesis="<img src=x onerror=hacked=1><script>hacked=2</script>",
        runs=tuple(map(_told, results.runs)),
        environments={run.id: {"torch": "2.13.0", "command": HOSTILE} for run in results.runs},
    )


def _told(run):
    """The run with a hostile note; those of linear_decay move ranks, too."""
    told = replace(run, spec={"strategy": run.strategy, "note": HOSTILE})
    if run.arm != "linear_decay":
        return told
    ranks = (13, *(site.realised_rank for site in run.sites[1:]))
    return replace(told, revisions=(RanksRevised(run_id=run.id, step=60, ranks=ranks),))


@pytest.fixture(scope="module")
def file(study, tmp_path_factory):
    return write_page(study, tmp_path_factory.mktemp("page") / "out")


@pytest.fixture(scope="module")
def tab():
    with chromium() as page:
        page.size(1280, 900)
        yield page


@pytest.fixture(scope="module")
def opened(tab, file):
    """For tests that leave the page as it is."""
    tab.open(file)
    return tab


@pytest.fixture
def page(tab, file):
    """The page freshly opened; a test that makes it complain fails."""
    tab.complaints.clear()
    tab.requests.clear()
    tab.media()
    tab.open(file)
    tab.js("localStorage.clear()")
    yield tab
    assert tab.complaints == []
    assert [url for url in tab.requests if not url.startswith(("blob:", "data:"))] == [file.as_uri()]


def column(page, name):
    """The texts of a column of the table of results, as they are shown."""
    return page.js(
        f"""(() => {{
            const table = document.querySelector("{RESULTS}");
            const at = [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent.startsWith("{name}"));
            return [...table.tBodies[0].rows].filter((row) => row.getClientRects().length).map((row) => row.cells[at].textContent);
        }})()"""
    )


def sort_by(page, name):
    page.js(
        f"""[...document.querySelectorAll("{RESULTS} thead button")].find((b) => b.textContent === "{name}").click()"""
    )


def test_nothing_hostile_ran(page):
    assert page.js("typeof hacked") == "undefined"
    assert page.js("document.querySelectorAll('main img, main script').length") == 0
    assert "<script>alert(1)</script>" in page.js("document.body.innerText")
    assert page.js("document.title") == "synthetic: Rankwise report"


def test_a_script_that_slipped_in_would_be_refused(page):
    page.js("document.body.append(Object.assign(document.createElement('script'), {textContent: 'hacked = 3'}))")
    page.js("document.body.insertAdjacentHTML('beforeend', '<img src=\"data:,\" onerror=\"hacked=4\">')")
    page.js("new Promise((done) => setTimeout(done, 50))")
    assert page.js("typeof hacked") == "undefined"
    assert any("Content Security Policy" in complaint for complaint in page.complaints)
    page.complaints.clear()


def test_columns_sort_by_number_and_back(page):
    before = column(page, "Test loss")
    sort_by(page, "Test loss [95%]")
    assert column(page, "Test loss") == sorted(before, key=lambda text: float(text.split()[0]))
    sort_by(page, "Test loss [95%]")
    assert column(page, "Test loss") == sorted(before, key=lambda text: -float(text.split()[0]))
    assert page.js(f"""document.querySelector("{RESULTS} [aria-sort]").getAttribute("aria-sort")""") == "descending"
    sort_by(page, "Test loss [95%]")
    assert column(page, "Test loss") == before


def test_what_is_missing_is_sorted_last_either_way(page):
    sort_by(page, "Difference [95%]")
    found = column(page, "Difference")
    assert found[-1] == "–"
    assert found[0].startswith("−0.0")
    sort_by(page, "Difference [95%]")
    found = column(page, "Difference")
    assert found[-1] == "–"
    assert found[0].startswith("+0.0")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("−0.0193 [−0.0261, −0.0125]", -0.0193), ("1,230", 1230), ("3.2e-2 (edge)", 0.032), ("< 0.001", 0.001),
        ("3 min 20 s", 200), ("1 h 05 min", 3900), ("9.9 s", 9.9), ("1.50 GiB", 1536), ("698 MiB", 698), ("–", None),
        ("74,176–74,752", 74176), ("0.71× (0.71×)", 0.71),
    ],
)  # fmt: skip
def test_numbers_are_read_as_they_are_written(opened, text, value):
    assert opened.js(f"numberIn({text!r})") == pytest.approx(value)


def test_the_filter_keeps_the_rows_that_have_every_word(page):
    page.js(
        """(() => { const input = document.querySelector("#results .table-tools input"); input.value = "16 BUDGET";
            input.dispatchEvent(new Event("input")); })()"""
    )
    assert column(page, "Arm") == ["uniform-r16 (different budget)"]
    assert page.js("document.querySelector('#results .table-tools [role=status]').textContent") == "1 of 5 rows"


def test_hiding_an_arm_hides_it_everywhere(page):
    box = "document.querySelector('#choice input[name=arm][value=\"3\"]')"
    count = "[...document.querySelectorAll('[data-arm=\"3\"]')].filter((node) => node.getClientRects().length).length"
    assert page.js(count) > 10
    page.js(f"{box}.click()")
    assert page.js(count) == 0
    assert "empirical" not in column(page, "Arm")
    assert page.js("document.getElementById('chosen').textContent") == "(4 of 5 arms)"
    page.js("document.querySelector('[data-all=arm]').click()")
    assert page.js(count) > 10


def test_single_seeds_can_be_hidden(page):
    shown = "[...document.querySelectorAll('[data-seed=\"2\"]')].filter((node) => node.getClientRects().length).length"
    assert page.js(shown) > 5
    page.js("document.querySelector('#choice input[name=seed][value=\"2\"]').click()")
    assert page.js(shown) == 0
    assert page.js("document.querySelectorAll('[data-seed=\"1\"].off-seed').length") == 0


def test_pointing_at_a_cell_names_its_site(page, study):
    site = study.reported("uniform")[0].sites[0]
    page.point(".map .cell rect")
    said = page.js("document.getElementById('tip').innerText")
    assert said.splitlines()[:2] == [site.site, "rank 8, planned 8, before training 8"]
    assert not page.js("document.getElementById('tip').hidden")
    page.point("h1")
    assert page.js("document.getElementById('tip').hidden")


def test_pointing_at_a_signal_names_the_site_its_ranks_and_its_signal(page, study):
    first, *others = (run.sites[0] for run in study.reported("empirical"))
    page.point("#figure-signals .mark.tipped")
    site, rank, signal = page.js("document.getElementById('tip').innerText").splitlines()
    assert site == first.site
    assert rank == f"rank {first.realised_rank}"
    assert {one.realised_rank for one in others} == {first.realised_rank}
    assert signal == f"signal {first.signal:.3g}, 3 runs"


def test_pointing_at_a_row_tells_how_its_rank_moved(page, study):
    site = study.reported("linear_decay")[0].sites[0]
    page.point("#figure-ranks_over_time .row.tipped rect")
    said = page.js("document.getElementById('tip').innerText").splitlines()
    assert said == [site.site, f"rank {site.realised_rank} before training", "13 from step 60"]
    assert page.js("document.querySelectorAll('#figure-ranks_over_time .panel').length") == 1


def test_pointing_at_a_pack_tells_what_was_predicted_and_measured(page, study):
    page.point("#figure-predictions .mark.tipped")
    pack, numbers, members = page.js("document.getElementById('tip').innerText").splitlines()
    runs = [run for run in study.runs if pack.split()[1] == f"{run.pack_id},"]
    assert pack.partition(", ")[2] == {"tuning": "learning rates", "report": "reported runs"}[runs[0].purpose]
    assert numbers == "predicted 670, measured 698, −4.0% off"
    assert members.startswith(f"{len(runs)} runs of uniform, uniform-r16, linear_decay, empirical")


def test_the_new_figures_follow_the_choice_of_arms_and_seeds(page):
    shown = "[...document.querySelectorAll('{}')].filter((node) => node.getClientRects().length).length"
    dots, panels = shown.format("#figure-signals .seed"), shown.format("#figure-signals .panel")
    assert (page.js(dots), page.js(panels)) == (3, 1)
    page.js("document.querySelector('#choice input[name=seed][value=\"2\"]').click()")
    assert page.js(dots) == 2
    page.js("document.querySelector('#choice input[name=arm][value=\"3\"]').click()")
    assert page.js(panels) == 0


def test_arrow_keys_go_from_mark_to_mark(page, study):
    page.js("document.querySelector('svg.map').focus()")
    first, second = (site.site for site in study.reported("uniform")[0].sites[:2])
    page.press("ArrowRight")
    assert page.js("document.getElementById('tip').innerText").startswith(first)
    page.press("ArrowRight")
    assert page.js("document.getElementById('tip').innerText").startswith(second)
    page.press("ArrowLeft")
    assert page.js("document.querySelectorAll('.current').length") == 1
    page.press("Escape")
    assert page.js("document.getElementById('tip').hidden")


def test_maps_show_what_is_chosen(page, study):
    choose = (
        "(() => {{ const [view, seed] = document.querySelectorAll('.map-tools select'); view.value = '{}'; seed.value = '{}';"
        " view.dispatchEvent(new Event('change')); }})()"
    )
    cells = "[...document.querySelectorAll('.panel[data-arm=\"3\"] .cell text')].map((text) => text.textContent)"
    empirical = study.reported("empirical")[1]
    page.js(choose.format("planned", empirical.seed))
    assert page.js(cells) == [str(site.planned_rank) for site in empirical.sites]
    page.js(choose.format("scale", ""))
    assert [float(text) for text in page.js(cells)] == pytest.approx([site.scale for site in empirical.sites], rel=0.06)
    assert page.js("document.querySelector('.map-view').textContent") == "scale"


def test_a_name_leads_to_its_runs_and_a_run_to_what_it_was(page, study):
    page.js("document.querySelector('#results tbody th a').click()")
    assert page.js("document.getElementById('detail-title').textContent") == "Arm uniform"
    ids = page.js("[...document.querySelectorAll('#detail-body a.run')].map((link) => link.textContent)")
    assert ids[:3] == [run.id for run in study.reported("uniform")]
    page.js("document.querySelector('#detail-body a.run').click()")
    assert page.js("document.getElementById('detail-title').textContent") == f"Run {ids[0]}"
    assert page.js("location.hash") == f"#run-{ids[0]}"
    said = page.js("document.getElementById('detail-body').textContent")
    assert '"strategy": "uniform"' in said
    assert '"torch": "2.13.0"' in said
    assert study.reported("uniform")[0].sites[-1].site in said
    page.js("document.querySelector('dialog button').click()")
    page.js("new Promise((done) => setTimeout(done, 100))")
    assert page.js("[document.getElementById('detail').open, location.hash]") == [False, ""]


def test_a_link_to_a_run_opens_it(page, study):
    run = study.reported("empirical")[0]
    page.js(f"location.hash = 'run-{run.id}'")
    page.js("new Promise((done) => setTimeout(done, 50))")
    assert page.js("document.getElementById('detail-title').textContent") == f"Run {run.id}"


def test_the_theme_can_be_chosen_and_follows_the_system(page):
    ground = "getComputedStyle(document.body).backgroundColor"
    assert page.js(ground) == "rgb(255, 255, 255)"
    page.media(scheme="dark")
    dark = page.js(ground)
    assert dark != "rgb(255, 255, 255)"
    page.js("document.getElementById('theme').click()")
    assert page.js(ground) == "rgb(255, 255, 255)"
    page.js("document.getElementById('theme').click()")
    page.media(scheme="light")
    assert page.js(ground) == dark
    assert page.js("document.getElementById('theme').textContent") == "Theme: dark"


def test_held_files_unpack_in_the_browser(page, file):
    held = "[...document.querySelectorAll('script.file')].find((script) => script.dataset.name === 'comparison.json')"
    unpacked = page.js(f"unpack({held}.textContent).then((blob) => blob.text())")
    assert unpacked == file.with_name("comparison.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [360, 390, 1280])
def test_nothing_is_wider_than_the_screen(page, width):
    page.size(width, 800)
    assert page.js("document.documentElement.scrollWidth") <= width
    page.size(1280, 900)


def test_on_paper_there_are_no_controls_and_nothing_is_folded(page):
    page.media(scheme="dark", kind="print")
    shown = (
        "(selector) => [...document.querySelectorAll(selector)].filter((node) => node.getClientRects().length).length"
    )
    assert page.js(f"({shown})('nav, .tools, #choice, .table-tools, figcaption button')") == 0
    assert page.js("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.js("dispatchEvent(new Event('beforeprint'))")
    assert page.js("document.querySelectorAll('main details:not([open])').length") == 0
    page.js("dispatchEvent(new Event('afterprint'))")
    assert page.js("document.querySelectorAll('main details[open]').length") == 0


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_axe_finds_no_barrier(page, study, width, scheme):
    """The rules of axe-core (WCAG 2 and its authors' practices), on the page and on the view behind an arm and a run."""
    axe = pytest.importorskip("axe_core_python")
    source = (Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    page.size(width, 900)
    page.media(scheme=scheme)
    page.js(source + "; 0")
    for place in ("", f"#arm-{study.runs[0].arm}", f"#run-{study.runs[0].id}"):
        page.js(f"location.hash = {json.dumps(place)}; new Promise((done) => setTimeout(done, 300))")
        found = page.js(
            "axe.run().then((r) => r.violations.map((v) => [v.id, v.nodes.slice(0, 3).map((n) => n.html)]))"
        )
        assert found == [], place
    page.size(1280, 900)
