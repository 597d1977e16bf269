import csv
import math
from dataclasses import replace

import pytest

from rankwise.ledger.results import CurvePoint
from rankwise.reporting.comparison import compare_arms
from rankwise.reporting.figures import FIGURES
from rankwise.reporting.style import arm_styles

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
    return {name: draw(study, comparison, folder) for name, draw in FIGURES.items() if name != "pareto"}


def rows(figure):
    with figure.csv.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


ELSEWHERE = ("pareto", "quantization_error")
"""Need several budgets, and quantized bases: test_sweeps.py, execution/test_quantization_errors.py."""


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
