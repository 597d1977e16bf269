"""Each of the ten flaws is found where a study has it, and not where it has not."""

from dataclasses import replace

import pytest

from rankwise.reporting.comparison import compare_arms
from rankwise.reporting.flaws import find_flaws, flaws_line, flaws_section

BUDGET, RATES, SCALES, INITS, SEEDS, CONTROLS, SCORES, CHARGES, STORED, MULTIPLICITY = range(1, 11)
ARMS = (
    {"name": "uniform", "strategy": "uniform", "rank": 8, "effect": 0.0},
    {"name": "empirical", "strategy": "empirical", "rank": 8, "effect": -0.02},
    {"name": "random", "strategy": "random", "rank": 8, "effect": 0.002},
)


@pytest.fixture(scope="module")
def sound(build_study):
    """A study that has none of them."""
    study = build_study(ARMS, num_seeds=8, num_layers=1)
    settings = [{**arm, "scaling": {"rule": "constant", "scale": 2.0}} for arm in study.study["arms"]]
    evened = [
        replace(
            run,
            sites=tuple(replace(site, scale=2.0) for site in run.sites),
            outcomes=tuple(replace(outcome, scale=2.0) for outcome in run.outcomes),
            residual_params=0,
        )
        for run in study.runs
    ]
    return replace(study, runs=tuple(evened), study={**study.study, "arms": settings})


def found(study) -> set[int]:
    checks = compare_arms(study).flaws
    assert len(checks) == 10
    return {number for number, check in enumerate(checks, 1) if check.is_avoided is False}


def with_arm(study, name, **settings):
    arms = [{**arm, **settings} if arm["name"] == name else arm for arm in study.study["arms"]]
    return replace(study, study={**study.study, "arms": arms})


def with_runs(study, arm, **values):
    return replace(study, runs=tuple(replace(run, **values) if run.arm == arm else run for run in study.runs))


def test_a_sound_study_has_none(sound):
    comparison = compare_arms(sound)
    assert found(sound) == set()
    assert flaws_line(comparison).startswith("Of the 10 known flaws of such comparisons this study avoids 10 (")
    assert flaws_section(comparison).count("| avoided |") == 10


def test_unspent_budget(sound):
    assert found(with_runs(sound, "empirical", residual_params=10_000)) == {BUDGET}


def test_another_budget_is_declared_and_no_flaw(sound):
    other = with_runs(with_arm(sound, "empirical", budget={"rank": 16}), "empirical", budget_params=10**6)
    assert found(other) == set()
    assert "Declared to have another: empirical" in compare_arms(other).flaws[BUDGET - 1].evidence


def test_one_rate_for_all(build_study):
    assert RATES in found(build_study(ARMS, num_seeds=8, num_layers=1, rates=(3e-4,)))


def test_a_rate_at_the_edge(sound):
    lowest = min(run.learning_rate for run in sound.runs)
    moved = replace(sound, chosen_learning_rates={**sound.chosen_learning_rates, "uniform": lowest})
    assert RATES in found(moved)


def test_scales_that_follow_ranks(build_study):
    assert SCALES in found(build_study(ARMS, num_seeds=8, num_layers=1))


def test_another_start_with_other_ranks(sound):
    mixed = with_arm(sound, "empirical", init="eva")
    assert found(mixed) == {INITS}
    twin = {"name": "twin", "strategy": "empirical", "rank": 8, "effect": -0.02}
    both = replace(mixed, study={**mixed.study, "arms": [*mixed.study["arms"], {**sound.study["arms"][1], **twin}]})
    assert INITS not in {n for n, c in enumerate(find_flaws(both, compare_arms(both).arms), 1) if c.is_avoided is False}


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_too_few_seeds(build_study, num_seeds):
    assert SEEDS in found(build_study(ARMS, num_seeds=num_seeds, num_layers=1))


def test_no_control(build_study):
    assert CONTROLS in found(build_study(ARMS[:2], num_seeds=8, num_layers=1))
    same = (ARMS[0], {**ARMS[0], "name": "uniform-r16", "rank": 16})
    assert CONTROLS not in found(build_study(same, num_seeds=8, num_layers=1))


def test_a_probe_that_was_not_charged(sound):
    assert found(with_runs(sound, "empirical", probe_peak_memory_bytes=None)) == {CHARGES}


def test_adapters_that_were_not_read_back(sound):
    assert found(with_runs(sound, "random", outcomes=())) == {STORED}


def test_nothing_is_claimed_of_a_study_without_runs(build_study):
    empty = build_study(ARMS, num_seeds=8, num_layers=1, status_of=lambda *_: "pending")
    checks = compare_arms(empty).flaws
    assert {n for n, check in enumerate(checks, 1) if check.is_avoided is None} >= {
        BUDGET,
        SCALES,
        SEEDS,
        CHARGES,
        STORED,
    }


def test_hostile_names_stay_text(sound):
    section = flaws_section(compare_arms(with_arm(sound, "empirical", init="<script>|")))
    assert "<script>" not in section
