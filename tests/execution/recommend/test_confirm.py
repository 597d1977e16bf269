"""The choice among finalists, from known losses."""

import math

import numpy as np
import pytest

from rankwise.execution.recommend.confirm import confirm_study, judge
from tests.execution.recommend.arms import make_question, make_results, make_score, make_sized

SMALL, LARGE = make_score(rank=4, loss=1.2), make_score(rank=16, loss=1.1)
SHAPED = make_score("linear_decay", loss=1.0, rank=16)
FINALISTS = [LARGE, SHAPED, SMALL]
SIZED = [make_sized(score.arm) for score in FINALISTS]
NOISE = 0.001 * np.random.default_rng(0).standard_normal((3, 8))


def losses(*means: float) -> dict[str, list[float]]:
    luck = np.linspace(-0.05, 0.05, 8)  # of the seed: shared by all arms
    return {
        score.arm.name: list(mean + luck + noise)
        for score, mean, noise in zip((SMALL, LARGE, SHAPED), means, NOISE, strict=True)
    }


def judged(found):
    return judge(make_question(), FINALISTS, SIZED, make_results(found))


def test_the_best_is_recommended_where_every_simpler_arm_is_significantly_worse():
    judgement = judged(losses(2.2, 2.1, 2.0))
    assert judgement.best == judgement.recommended == "linear_decay r16"
    assert {c.difference.outcome for c in judgement.comparisons} == {"worse"}
    against = judgement.against_best("uniform r4")
    assert against.estimate.value == pytest.approx(0.2, abs=0.003)
    assert against.p_holm == pytest.approx(3 * 2 / 2**8), "three pairs, all seeds agree, at Holm's strictest step"
    assert judgement.against_best("linear_decay r16") is None


def test_the_simplest_arm_that_is_not_significantly_worse_is_recommended():
    assert judged(losses(2.2, 2.0, 2.0 - 0.0001)).recommended == "uniform r16"
    assert judged(losses(2.0, 2.0, 2.0)).recommended == "uniform r4"


def test_a_real_but_tiny_difference_does_not_count():
    judgement = judged(losses(2.003, 2.1, 2.0))
    assert judgement.against_best("uniform r4").outcome == "practically the same"
    assert judgement.recommended == "uniform r4"


def test_the_finalists_stand_from_simple_to_complicated():
    judgement = judged(losses(2.2, 2.1, 2.0))
    assert [finalist.arm.name for finalist in judgement.finalists] == ["uniform r4", "uniform r16", "linear_decay r16"]


def test_every_pair_is_compared_and_the_higher_loss_stands_against_the_lower():
    judgement = judged(losses(2.2, 2.1, 2.0))
    assert {(c.arm, c.other) for c in judgement.comparisons} == {
        ("uniform r4", "uniform r16"),
        ("uniform r4", "linear_decay r16"),
        ("uniform r16", "linear_decay r16"),
    }
    assert all(c.difference.estimate.value > 0 for c in judgement.comparisons)


def test_an_arm_of_which_a_run_diverged_is_not_eligible():
    found = losses(2.0, 2.1, 2.2)
    found["uniform r4"][3] = math.nan
    judgement = judged(found)
    assert judgement.best == judgement.recommended == "uniform r16"
    assert judgement.finalist("uniform r4").num_ended_badly == 1
    assert len(judgement.comparisons) == 1


def test_only_seeds_that_all_eligible_finalists_have_are_compared():
    found = {name: [*row[:5], *[None] * 3] for name, row in losses(2.2, 2.1, 2.0).items()}
    found["uniform r4"] = losses(2.2, 2.1, 2.0)["uniform r4"]
    judgement = judged(found)
    assert judgement.seeds == (0, 1, 2, 3, 4)
    assert len(judgement.finalist("uniform r4").run_ids) == 5
    assert judgement.recommended == "uniform r4", "five seeds can show no difference, and the simplest is left"


def test_without_a_confirmed_seed_the_best_uniform_arm_of_the_race_is_recommended():
    for results in (None, make_results({name: [None] * 8 for name in losses(1, 1, 1)})):
        judgement = judge(make_question(), FINALISTS, SIZED, results)
        assert judgement.best is None
        assert judgement.recommended == "uniform r16", "lower validation loss than rank 4, and linear_decay is uneven"
    assert judge(make_question(), [SHAPED], SIZED, None).recommended == "linear_decay r16"


def test_confirming_runs_have_their_learning_rate_chosen_and_seeds_that_the_race_never_used():
    study = confirm_study(make_question(), FINALISTS, 8)
    assert study.seeds == tuple(range(8))
    assert not set(study.seeds) & set(study.tuning_seeds)
    assert study.compare.baseline == "uniform r16"
    assert {arm.train.learning_rates for arm in study.arms} == {(2e-3,)}
