"""Studies whose arms are a factorial: which are, what they say, and that others say nothing."""

from dataclasses import replace
from itertools import product

import pytest

from rankwise.reporting.comparison import compare_arms
from rankwise.reporting.effects_section import main_effects_section

SCALINGS = ({"rule": "alpha_over_r", "alpha": 16.0}, {"rule": "constant", "scale": 2.0})


def crossed(build_study, *, without=(), **options):
    """Two allocations x two scalings x two initialisations, by name such as `empirical constant gaussian`."""
    cells = [
        (strategy, scaling, init)
        for strategy, scaling, init in product(("uniform", "empirical"), SCALINGS, ("kaiming", "gaussian"))
    ]
    names = {f"{strategy} {scaling['rule']} {init}": (strategy, scaling, init) for strategy, scaling, init in cells}
    names = {name: cell for name, cell in names.items() if name not in without}
    arms = tuple(
        {
            "name": name,
            "strategy": strategy,
            "rank": 8,
            "effect": -0.03 * (strategy == "empirical") + 0.05 * (init == "gaussian"),
        }
        for name, (strategy, _, init) in names.items()
    )
    study = build_study(arms, num_layers=1, **options)
    settings = [{**arm, "scaling": names[arm["name"]][1], "init": names[arm["name"]][2]} for arm in study.study["arms"]]
    return replace(study, study={**study.study, "arms": settings})


def effects(study):
    factorial = compare_arms(study).factorial
    return {(effect.factor, effect.level): effect for effect in factorial.main_effects}


def test_each_factor_has_its_effect_whatever_the_others_are(build_study):
    study = crossed(build_study, num_seeds=8, rates=(3e-4,))
    found = effects(study)
    assert set(found) == {
        ("allocation", "empirical"), ("scaling", "constant 2"), ("initialisation", "gaussian"),
    }  # fmt: skip
    assert found["allocation", "empirical"].estimate.value == pytest.approx(-0.03, abs=0.004)
    assert found["initialisation", "gaussian"].estimate.value == pytest.approx(0.05, abs=0.004)
    assert found["scaling", "constant 2"].estimate.value == pytest.approx(0, abs=0.004)
    low, high = found["allocation", "empirical"].estimate.low, found["allocation", "empirical"].estimate.high
    assert low < -0.03 < high
    assert {effect.num_cells for effect in found.values()} == {4}


def test_the_report_shows_them_with_what_they_rest_on(build_study):
    text = main_effects_section(compare_arms(crossed(build_study, num_seeds=8, rates=(3e-4,))))
    assert "8 arms of 8 combinations, balanced" in text
    row = next(line for line in text.splitlines() if line.startswith("| initialisation"))
    assert row.startswith("| initialisation | gaussian | kaiming | +0.0")
    assert row.endswith("| 8 | 4 of 4 |")
    assert "Interactions of two factors" in text
    assert "linear mixed model" in text


def test_the_mixed_model_agrees_in_a_full_factorial(build_study):
    factorial = compare_arms(crossed(build_study, num_seeds=8, rates=(3e-4,))).factorial
    by_hand = {(effect.factor, effect.level): effect.estimate.value for effect in factorial.main_effects}
    fitted = {(effect.factor, effect.level): effect.estimate.value for effect in factorial.mixed.effects}
    assert fitted == pytest.approx(by_hand, abs=1e-8)
    assert factorial.mixed.num_runs == 64
    assert 0 < factorial.mixed.seed_frac < 1


def test_a_part_of_a_factorial_says_that_it_is_one(build_study):
    study = crossed(build_study, without=("empirical constant gaussian",), num_seeds=8, rates=(3e-4,))
    text = main_effects_section(compare_arms(study))
    assert "7 arms of 8 combinations, not balanced" in text
    assert "| 3 of 4 |" in text
    assert "effects with different combinations do not compare" in text


def test_seeds_without_all_arms_are_left_out_in_sight(build_study):
    def status_of(arm, purpose, rate, seed):
        return "diverged" if arm == "empirical constant kaiming" and seed == 2 else "finished"

    study = crossed(build_study, num_seeds=4, rates=(3e-4,), status_of=status_of)
    factorial = compare_arms(study).factorial
    assert (factorial.seeds, factorial.left_out_seeds) == ((1, 3, 4), (2,))
    assert "Left out, because an arm has no loss there: 2." in main_effects_section(compare_arms(study))


def test_arms_of_another_budget_take_no_part(build_study):
    study = crossed(build_study, num_seeds=3, rates=(3e-4,))
    arms = [
        {**arm, "budget": {"rank": 16}} if arm["name"].startswith("empirical constant") else arm
        for arm in study.study["arms"]
    ]
    factorial = compare_arms(replace(study, study={**study.study, "arms": arms})).factorial
    assert len(factorial.arms) == 6


def test_learning_rate_factors_are_a_factor_named_by_what_is_not_neutral(build_study):
    study = crossed(build_study, num_seeds=3, rates=(3e-4,))
    layer_wise = {"first": 1.0, "last": 0.5, "attention": 1.0, "mlp": 1.0, "rank_power": 0.0}
    changed = {"lr_factors": layer_wise, "lora_plus_ratio": 16.0}
    arms = [
        {**arm, "scaling": SCALINGS[0], "train": {**arm["train"], **changed}} if "constant" in arm["name"] else arm
        for arm in study.study["arms"]
    ]
    factorial = compare_arms(replace(study, study={**study.study, "arms": arms})).factorial
    assert factorial.factors["layer-wise learning rates"] == ("none", "last 0.5, lora_plus_ratio 16")
    assert len(factorial.arms) == 8


def test_one_factor_is_no_factorial(full_study):
    assert compare_arms(full_study).factorial is None
    assert main_effects_section(compare_arms(full_study)) == ""


def test_an_unfinished_factorial_says_nothing(build_study):
    study = crossed(build_study, num_seeds=2, rates=(3e-4,), status_of=lambda *_: "pending")
    assert compare_arms(study).factorial is None
