import csv
import math
from dataclasses import replace

import pytest

from rankwise.ledger.results import CurvePoint
from rankwise.records import RanksRevised
from rankwise.reporting.comparison import compare_arms
from rankwise.reporting.document import render_results
from rankwise.reporting.figures import FIGURES
from rankwise.reporting.figures.predictions import known_quantities, limits
from rankwise.reporting.figures.rank_maps import module_labels
from rankwise.reporting.figures.ranks_over_time import moving_runs, rank_path
from rankwise.reporting.figures.signals import agreement
from rankwise.reporting.predictions import pack_predictions
from rankwise.reporting.style import arm_styles

ELSEWHERE = ("pareto", "quantization_error", "ranks_over_time")
"""Need several budgets, quantized bases, and ranks that move: test_sweeps.py, execution/test_quantization_errors.py, and
`moving` below."""
KEPT = ("uniform", "uniform-r16", "empirical")


@pytest.fixture(scope="module")
def study(build_study):
    arms = tuple(
        {"name": name, "strategy": "empirical" if name == "empirical" else "uniform", "rank": rank, "effect": effect}
        for name, rank, effect in zip(KEPT, (8, 16, 8), (0.0, -0.03, -0.02), strict=True)
    )
    return build_study(arms, num_seeds=3, num_layers=2)


@pytest.fixture(scope="module")
def drawn(study, tmp_path_factory):
    """Each figure's files."""
    folder = tmp_path_factory.mktemp("figures")
    comparison = compare_arms(study)
    return {name: draw(study, comparison, folder) for name, draw in FIGURES.items() if name not in ELSEWHERE}


def rows(figure):
    with figure.csv.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("name", [name for name in FIGURES if name not in ELSEWHERE])
def test_every_figure_is_png_pdf_and_csv_under_its_own_name(drawn, name):
    figure = drawn[name]
    assert figure.png.name == f"{name}.png"
    assert figure.png.read_bytes().startswith(b"\x89PNG")
    assert figure.pdf.read_bytes().startswith(b"%PDF")
    assert figure.caption
    assert rows(figure)


@pytest.mark.parametrize("name", ["differences", "rank_maps"])
def test_the_same_study_gives_the_same_bytes(study, drawn, tmp_path, name):
    again = FIGURES[name](study, compare_arms(study), tmp_path)
    for suffix in ("png", "pdf", "csv"):
        assert getattr(again, suffix).read_bytes() == getattr(drawn[name], suffix).read_bytes()
    assert b"CreationDate" not in again.pdf.read_bytes()


def test_rank_maps_hold_every_site_of_every_reported_run(study, drawn):
    runs = {run.id: run for arm in study.arm_names for run in study.reported(arm)}
    found = rows(drawn["rank_maps"])
    assert len(found) == sum(len(run.sites) for run in runs.values())
    for row in found:
        (site,) = [site for site in runs[row["run_id"]].sites if site.site == row["site"]]
        assert int(row["realised_rank"]) == site.realised_rank
        assert float(row["scale"]) == site.scale
        assert row["site"].endswith(row["module"])


def test_modules_of_one_name_in_a_layer_stay_apart(study, tmp_path):
    def renamed(run):
        names = iter(["h.0.attn.c_proj", "h.0.mlp.c_proj", "h.1.attn.c_proj", "h.1.mlp.c_proj"])
        kept = [site for site in run.sites if site.site.endswith(("q_proj", "up_proj"))]
        return replace(run, sites=tuple(replace(site, site=next(names)) for site in kept))

    study = replace(study, runs=tuple(map(renamed, study.runs)))
    found = rows(FIGURES["rank_maps"](study, compare_arms(study), tmp_path))
    assert {row["module"] for row in found} == {"attn.c_proj", "mlp.c_proj"}


def test_learning_curves_hold_every_point_as_measured(study, drawn):
    found = rows(drawn["learning_curves"])
    for run in study.reported("empirical"):
        for split, curve in (("train", run.training_curve), ("validation", run.validation_curve)):
            mine = [row for row in found if row["run_id"] == run.id and row["split"] == split]
            assert [(int(row["step"]), float(row["loss_nats"])) for row in mine] == [(p.step, p.value) for p in curve]


def test_a_loss_that_is_no_number_breaks_no_curve(study, tmp_path):
    def broken(run):
        diverged = run.purpose == "report" and run.seed == 1
        if not diverged:
            return run
        curve = (*run.training_curve[:20], CurvePoint(step=21, value=math.nan))
        return replace(run, status="diverged", training_curve=curve, validation_curve=run.validation_curve[:1])

    study = replace(study, runs=tuple(map(broken, study.runs)))
    assert FIGURES["learning_curves"](study, compare_arms(study), tmp_path) is not None


def test_differences_hold_means_and_single_seeds(study, drawn):
    found = rows(drawn["differences"])
    difference = compare_arms(study).arm("empirical").difference
    mine = [row for row in found if row["arm"] == "empirical"]
    assert [float(row["difference_nats"]) for row in mine] == [difference.estimate.value, *difference.per_seed]
    assert float(mine[0]["low_nats"]) == difference.estimate.low
    assert [row["low_nats"] for row in mine[1:]] == [""] * 3
    assert {row["arm"] for row in found} == {"uniform-r16", "empirical"}


def test_loss_against_params_holds_each_arm(study, drawn):
    comparison = compare_arms(study)
    for row in rows(drawn["loss_against_params"]):
        arm = comparison.arm(row["arm"])
        assert float(row["test_loss_nats"]) == arm.test_loss.value
        assert (int(row["params_low"]), int(row["params_high"])) == (arm.params.low, arm.params.high)
        assert int(row["num_seeds"]) == 3


def test_tuning_holds_every_run(study, drawn):
    runs = {run.id: run for run in study.runs if run.purpose == "tuning"}
    found = rows(drawn["tuning"])
    assert {row["run_id"] for row in found} == set(runs)
    for row in found:
        assert float(row["validation_loss_nats"]) == runs[row["run_id"]].scores["validation_loss"]
        assert (row["chosen"] == "True") == (float(row["learning_rate"]) == 3e-4)


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_to_show_is_no_figure(build_study, tmp_path, name):
    study = build_study(tuned=False, status_of=lambda *_: "pending")
    assert FIGURES[name](study, compare_arms(study), tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_arms_keep_their_look_and_differ_also_without_colour():
    names = [f"arm{index}" for index in range(10)]
    styles = arm_styles(names, "arm3")
    assert styles["arm3"].colour == "#000000"
    assert len({(style.marker, str(style.line)) for style in styles.values()}) == len(names)
    assert arm_styles(names[:5], "arm3") == {name: styles[name] for name in names[:5]}


def moved(run, revisions):
    """The run as a dynamic strategy would leave it: after each step all but the named sites keep their rank."""
    ranks, found = [site.realised_rank for site in run.sites], []
    for step, changes in revisions:
        for site, rank in changes.items():
            ranks[site] = rank
        found.append(RanksRevised(run_id=run.id, step=step, ranks=tuple(ranks)))
    return replace(run, revisions=tuple(found))


@pytest.fixture
def moving(study):
    """`empirical` moves the first and the last of 14 sites; a third seed diverged."""
    revisions = {1: [(40, {0: 12}), (90, {0: 6, 13: 3})], 2: [(40, {0: 2})], 3: [(10, {0: 99})]}

    def moving_run(run):
        if run.arm != "empirical" or run.purpose != "report":
            return run
        return replace(moved(run, revisions[run.seed]), status="diverged" if run.seed == 3 else run.status)

    return replace(study, runs=tuple(map(moving_run, study.runs)))


def test_ranks_over_time_hold_every_change(moving, tmp_path):
    found = rows(FIGURES["ranks_over_time"](moving, compare_arms(moving), tmp_path))
    runs = {run.id: run for run in moving.reported("empirical")}
    assert {row["run_id"] for row in found} == {run.id for run in runs.values() if run.seed != 3}
    first = next(run for run in runs.values() if run.seed == 1)
    mine = [row for row in found if row["run_id"] == first.id]
    start, later = mine[: len(first.sites)], mine[len(first.sites) :]
    assert [(int(row["step"]), int(row["rank"])) for row in start] == [(0, site.realised_rank) for site in first.sites]
    assert [(int(row["step"]), row["site"], int(row["rank"])) for row in later] == [
        (40, first.sites[0].site, 12), (90, first.sites[0].site, 6), (90, first.sites[13].site, 3),
    ]  # fmt: skip
    assert (tmp_path / "ranks_over_time.png").read_bytes().startswith(b"\x89PNG")


def test_a_rank_path_is_the_mean_over_seeds_with_each_module_in_one_block(moving):
    (runs,) = moving_runs(moving).values()
    labels = module_labels(runs[0].sites)
    path = rank_path(runs, labels)
    assert (path.steps, path.num_steps) == ((0, 40, 90), 150)
    assert [module for module, *_ in path.blocks()] == list(dict.fromkeys(labels[site.site] for site in runs[0].sites))
    assert [site.layer for site in path.sites] == [0, 1] * 7
    started = [run.sites[0].realised_rank for run in runs]
    assert list(path.ranks_ST[0]) == [sum(started) / 2, (12 + 2) / 2, (6 + 2) / 2]
    last = [site.site for site in path.sites].index(runs[0].sites[13].site)
    rank = runs[1].sites[13].realised_rank
    assert path.ranks_ST[last][-1] == (3 + rank) / 2
    assert path.ranks_ST[last][0] == (runs[0].sites[13].realised_rank + rank) / 2


def test_only_arms_whose_ranks_moved_are_shown_over_time(moving, study, tmp_path):
    assert list(moving_runs(moving)) == ["empirical"]
    assert FIGURES["ranks_over_time"](study, compare_arms(study), tmp_path) is None


def test_ranks_that_move_after_the_last_step_are_shown(study, tmp_path):
    runs = tuple(moved(run, [(150, {0: 1})]) if run.arm == "uniform-r16" else run for run in study.runs)
    study = replace(study, runs=runs)
    found = rows(FIGURES["ranks_over_time"](study, compare_arms(study), tmp_path))
    assert {(row["arm"], row["step"]) for row in found} == {("uniform-r16", "0"), ("uniform-r16", "150")}


def test_signals_hold_each_site_of_each_measured_run(study, drawn):
    found = rows(drawn["signals"])
    runs = {run.id: run for run in study.reported("empirical")}
    assert {row["arm"] for row in found} == {"empirical"}
    assert len(found) == sum(len(run.sites) for run in runs.values())
    for row in found:
        (site,) = [site for site in runs[row["run_id"]].sites if site.site == row["site"]]
        assert (float(row["value"]), int(row["rank"])) == (site.signal, site.realised_rank)
        assert (row["kind"], int(row["layer"])) == (site.kind, site.layer)
        assert row["signal"] == "RMS gradient (nats per unit weight)"


def test_agreement_is_spearmans_over_sites(study):
    (run, *_) = study.reported("empirical")
    sites = run.sites[:4]

    def having(signals, ranks):
        pairs = zip(sites, signals, ranks, strict=True)
        return replace(run, sites=tuple(replace(site, signal=s, realised_rank=r) for site, s, r in pairs))

    rising, falling = having((1.0, 2.0, 3.0, 4.0), (2, 4, 6, 9)), having((1.0, 2.0, 3.0, 4.0), (9, 6, 4, 2))
    one_off = having((1.0, 2.0, 3.0, 4.0), (1, 3, 2, 4))
    assert agreement([rising]) == pytest.approx(1)
    assert agreement([falling]) == pytest.approx(-1)
    assert agreement([one_off]) == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert agreement([rising, falling]) == pytest.approx(0)
    assert agreement([having((1.0, 2.0, 3.0, 4.0), (3, 3, 3, 3)), rising]) == pytest.approx(1)
    assert agreement([having((1.0, 1.0, 1.0, 1.0), (1, 2, 3, 4))]) is None


def test_without_recorded_signals_there_is_no_figure_and_the_report_says_why(study, tmp_path):
    def older(run):
        return replace(run, signal=None, sites=tuple(replace(site, signal=None) for site in run.sites))

    old = replace(study, runs=tuple(map(older, study.runs)))
    comparison = compare_arms(old)
    assert FIGURES["signals"](old, comparison, tmp_path) is None
    assert "What empirical went by at each site is not known" in render_results(old, comparison, (), command=None)
    assert "went by" not in render_results(study, compare_arms(study), (), command=None)


def test_a_hostile_signal_breaks_no_figure(study, tmp_path):
    def hostile(run):
        if run.arm != "empirical":
            return run
        first = replace(run.sites[0], signal=math.inf if run.seed == 1 else run.sites[0].signal)
        return replace(run, signal="$\\frac{\x1b[2J\n" * 40, sites=(first, *run.sites[1:]))

    study = replace(study, runs=tuple(map(hostile, study.runs)))
    assert {row["seed"] for row in rows(FIGURES["signals"](study, compare_arms(study), tmp_path))} == {"2", "3"}


def test_predictions_hold_each_pack(study, drawn):
    packs = {}
    for run in study.runs:
        packs.setdefault(run.pack_id, []).append(run)
    found = {row["pack_id"]: row for row in rows(drawn["predictions"])}
    assert set(found) == set(packs)
    for pack_id, row in found.items():
        runs = packs[pack_id]
        assert int(row["num_runs"]) == len(runs)
        assert row["purpose"] == runs[0].purpose
        assert float(row["predicted_wall_s"]) == pytest.approx(sum(run.predicted_wall_s for run in runs))
        assert float(row["wall_s"]) == pytest.approx(sum(run.wall_s - run.probe_wall_s for run in runs))
        assert int(row["predicted_memory_bytes"]) == runs[0].predicted_memory_bytes
        assert int(row["peak_memory_bytes"]) == runs[0].peak_memory_bytes


def test_a_ledger_without_packs_has_no_predictions_and_the_report_says_why(study, tmp_path):
    old = replace(study, runs=tuple(replace(run, pack_id=None) for run in study.runs))
    comparison = compare_arms(old)
    assert FIGURES["predictions"](old, comparison, tmp_path) is None
    text = render_results(old, comparison, (), command=None)
    assert "memory –; time –. Ledgers keep what they need from version 5 on." in text


def test_memory_alone_is_one_panel(study, tmp_path):
    found = replace(study, runs=tuple(replace(run, predicted_wall_s=None) for run in study.runs))
    packs = pack_predictions(found.runs)
    assert [quantity.title for quantity in known_quantities(packs)] == ["memory"]
    assert all(row["wall_s"] == "" for row in rows(FIGURES["predictions"](found, compare_arms(found), tmp_path)))


@pytest.mark.parametrize("pairs", [[(90.0, 100.0)], [(3.0, 100.0), (100.0, 90.0)], [(99.0, 100.0), (101.0, 102.0)]])
def test_both_axes_hold_every_value_with_room(pairs):
    low, high = limits(pairs)
    values = [value for pair in pairs for value in pair]
    assert 0 < low < min(values)
    assert high > max(values)
