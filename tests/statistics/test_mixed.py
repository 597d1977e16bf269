"""The mixed model against what is known of balanced designs, and against data drawn from it."""

from itertools import product

import numpy as np
import pytest

from rankwise.statistics.factorial import main_effects
from rankwise.statistics.mixed import MixedModel, fit_mixed_model

REFERENCE = {"strategy": "uniform", "init": "kaiming"}
CELLS = list(product(("uniform", "eva"), ("kaiming", "eva", "pissa")))


def drawn(rng: np.random.Generator, num_seeds: int, *, sd_seed: float = 0.5, sd_rest: float = 0.1) -> np.ndarray:
    """Losses (A, S): EVA's start is worth -0.3, its ranks nothing, PiSSA's start 0.1."""
    effect = {"eva": -0.3, "pissa": 0.1, "kaiming": 0.0}
    mean_A = np.array([2 + effect[init] for _, init in CELLS])
    return mean_A[:, None] + rng.normal(0, sd_seed, num_seeds) + rng.normal(0, sd_rest, (len(CELLS), num_seeds))


def fit(loss_AS: np.ndarray, keep: np.ndarray | None = None) -> MixedModel | None:
    num_seeds = loss_AS.shape[1]
    keep = np.ones(loss_AS.shape, dtype=bool) if keep is None else keep
    runs = [(a, s) for a in range(len(CELLS)) for s in range(num_seeds) if keep[a, s]]
    levels_of = {name: [CELLS[a][i] for a, _ in runs] for i, name in enumerate(REFERENCE)}
    return fit_mixed_model([loss_AS[r] for r in runs], levels_of, [s for _, s in runs], REFERENCE, level=0.95)


def test_in_a_balanced_design_the_effects_are_the_main_effects():
    rng = np.random.default_rng(0)
    loss_AS = drawn(rng, 8)
    levels_of = {name: [cell[i] for cell in CELLS] for i, name in enumerate(REFERENCE)}
    by_hand = main_effects(loss_AS, levels_of, REFERENCE, level=0.95, rng=rng)
    found = fit(loss_AS)
    assert found is not None
    effects = {(e.factor, e.level): e.effect for e in found.effects}
    assert effects == {(e.factor, e.level): pytest.approx(e.effect, abs=1e-8) for e in by_hand}


def test_the_variances_are_those_of_a_balanced_analysis_of_variance():
    """Residual mean square, and (mean square between seeds - residual) / arms."""
    loss_AS = drawn(np.random.default_rng(1), 10)
    design = np.array([[1, strategy == "eva", init == "eva", init == "pissa"] for strategy, init in CELLS], dtype=float)
    centred = loss_AS - loss_AS.mean(axis=0)
    fitted = design @ np.linalg.lstsq(design, centred.mean(axis=1), rcond=None)[0]
    num_free = loss_AS.size - design.shape[1] - loss_AS.shape[1] + 1
    rest = float(((centred - fitted[:, None]) ** 2).sum()) / num_free
    between = len(CELLS) * float(loss_AS.mean(axis=0).var(ddof=1))
    found = fit(loss_AS)
    assert found is not None
    assert found.sd_rest == pytest.approx(np.sqrt(rest), rel=1e-3)
    assert found.sd_seed == pytest.approx(np.sqrt((between - rest) / len(CELLS)), rel=1e-3)
    assert 0.8 < found.seed_frac < 1


def test_intervals_cover_the_truth_and_runs_without_a_partner_count():
    rng = np.random.default_rng(2)
    hits = []
    for _ in range(60):
        keep = rng.random((len(CELLS), 8)) > 0.1
        found = fit(drawn(rng, 8), keep)
        assert found is not None
        assert found.num_runs == keep.sum()
        hits += [
            not e.interval.excludes({"eva": -0.3, "pissa": 0.1}[e.level]) for e in found.effects if e.factor == "init"
        ]
    assert 0.88 <= np.mean(hits) <= 1


def test_what_cannot_be_told_apart_is_not_fitted():
    loss_AS = drawn(np.random.default_rng(3), 4)
    assert fit(loss_AS[:, :1]) is None
    same = {"strategy": ["uniform", "eva"] * 4, "init": ["kaiming", "eva"] * 4}
    assert fit_mixed_model(np.arange(8.0), same, [0, 0, 1, 1, 2, 2, 3, 3], REFERENCE, level=0.95) is None
    with pytest.raises(ValueError, match="as many seeds"):
        fit_mixed_model([1.0, 2.0], {"init": ["kaiming"]}, [0, 1], {"init": "kaiming"}, level=0.95)
