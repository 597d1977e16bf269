"""Main effects against ordinary least squares with a block per seed, and against loops."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from rankwise.statistics.factorial import interactions, main_effects

FACTORS = {"allocation": ("uniform", "decay", "heavy"), "init": ("kaiming", "pissa"), "scaling": ("a", "b", "c")}
REFERENCE = {name: levels[0] for name, levels in FACTORS.items()}
CELLS = list(product(*FACTORS.values()))


def levels_of(cells):
    return {name: [cell[index] for cell in cells] for index, name in enumerate(FACTORS)}


def losses(cells, num_seeds=6, seed=0):
    """Effects of each factor, an interaction, a level per seed, and noise."""
    rng = np.random.default_rng(seed)
    loss_AS = rng.normal(scale=0.02, size=(len(cells), num_seeds)) + rng.normal(size=num_seeds)
    for index, (allocation, init, scaling) in enumerate(cells):
        loss_AS[index] += 0.3 * (allocation == "heavy") - 0.1 * (init == "pissa") + 0.2 * (scaling == "c")
        loss_AS[index] += 0.5 * (allocation == "heavy" and scaling == "c")
    return loss_AS


def effects(loss_AS, cells, **options):
    found = main_effects(loss_AS, levels_of(cells), REFERENCE, level=0.95, rng=np.random.default_rng(1), **options)
    return {(effect.factor, effect.level): effect for effect in found}


def test_a_full_factorial_gives_the_coefficients_of_least_squares_with_seed_blocks():
    loss_AS = losses(CELLS)
    rows = [
        {"loss": loss_AS[arm, seed], "seed": seed, **dict(zip(FACTORS, cell, strict=True))}
        for arm, cell in enumerate(CELLS)
        for seed in range(loss_AS.shape[1])
    ]
    terms = " + ".join(f"C({name}, Treatment('{levels[0]}'))" for name, levels in FACTORS.items())
    fitted = smf.ols(f"loss ~ {terms} + C(seed)", pd.DataFrame(rows)).fit()
    found = effects(loss_AS, CELLS)
    assert len(found) == 2 + 1 + 2
    for (factor, level), effect in found.items():
        coefficient = fitted.params[f"C({factor}, Treatment('{REFERENCE[factor]}'))[T.{level}]"]
        assert effect.effect == pytest.approx(coefficient, abs=1e-12)
        assert effect.interval.low < effect.effect < effect.interval.high
        assert effect.interval.n == 6
        assert effect.is_complete


def test_a_part_of_a_factorial_compares_only_arms_that_differ_in_one_factor():
    cells = [cell for cell in CELLS if cell not in {("heavy", "kaiming", "c"), ("uniform", "pissa", "b")}]
    loss_AS = losses(cells)
    found = effects(loss_AS, cells)
    for factor_index, factor in enumerate(FACTORS):
        for level in FACTORS[factor][1:]:
            differences = [
                loss_AS[mine] - loss_AS[theirs]
                for mine, theirs in product(range(len(cells)), repeat=2)
                if cells[mine][factor_index] == level
                and cells[theirs][factor_index] == REFERENCE[factor]
                and all(cells[mine][i] == cells[theirs][i] for i in range(3) if i != factor_index)
            ]
            effect = found[factor, level]
            np.testing.assert_allclose(effect.effect_S, np.mean(differences, axis=0), atol=1e-12)
            assert effect.num_cells == len(differences)
    assert not found["allocation", "heavy"].is_complete
    assert found["allocation", "heavy"].num_all_cells == 6


def test_a_level_that_never_meets_its_reference_has_no_effect():
    cells = [("uniform", "kaiming", "a"), ("decay", "kaiming", "a"), ("decay", "pissa", "b")]
    assert set(effects(losses(cells), cells)) == {("allocation", "decay")}


def test_interactions_are_differences_of_differences():
    loss_AS = losses(CELLS)
    found = {
        (*i.factors, *i.levels): i
        for i in interactions(loss_AS, levels_of(CELLS), REFERENCE, level=0.95, rng=np.random.default_rng(1))
    }
    assert len(found) == 2 * 1 + 2 * 2 + 1 * 2
    at = dict(zip(CELLS, loss_AS, strict=True))
    by_hand = np.mean(
        [
            at["heavy", init, "c"] - at["uniform", init, "c"] - at["heavy", init, "a"] + at["uniform", init, "a"]
            for init in FACTORS["init"]
        ]
    )
    seen = found["allocation", "scaling", "heavy", "c"]
    assert seen.effect == pytest.approx(by_hand)
    assert seen.interval.excludes(0)
    assert seen.num_cells == 2
    assert abs(found["allocation", "scaling", "decay", "b"].effect) < 0.05


def test_interactions_need_all_four_cells():
    cells = [("uniform", "kaiming", "a"), ("heavy", "kaiming", "a"), ("uniform", "kaiming", "c")]
    found = interactions(losses(cells), levels_of(cells), REFERENCE, level=0.95, rng=np.random.default_rng(1))
    assert found == ()


def test_one_seed_has_effects_without_intervals():
    effect = effects(losses(CELLS, num_seeds=1), CELLS)["init", "pissa"]
    assert effect.effect == pytest.approx(-0.1, abs=0.05)
    assert np.isnan(effect.interval.low)


@pytest.mark.parametrize(
    ("cells", "match"),
    [([CELLS[0], CELLS[0]], "two arms are the same combination of levels: uniform, kaiming, a")],
)
def test_what_makes_no_design_is_refused(cells, match):
    with pytest.raises(ValueError, match=match):
        effects(losses(cells), cells)


def test_missing_losses_are_refused():
    loss_AS = losses(CELLS)
    loss_AS[0, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        effects(loss_AS, CELLS)
