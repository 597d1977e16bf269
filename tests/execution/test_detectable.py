from dataclasses import replace
from statistics import stdev

import pytest

from rankwise.execution.detectable import judge_detectable
from rankwise.execution.pilot import pilot_of
from rankwise.ledger import open_ledger
from rankwise.statistics.power import minimum_detectable_difference, seeds_needed
from rankwise.testing.sample_ledger import sample_study, write_sample


@pytest.fixture
def earlier(tmp_path):
    """Three seeds; the arm linear_decay finished on all of them, random did not."""
    with open_ledger(str(tmp_path / "earlier.db")) as ledger:
        study = write_sample(ledger)
        return ledger.study_results(study.name)


def as_pilot(results):
    return pilot_of(results, "the study of this name in the ledger")


def with_seeds(study, num_seeds):
    return study.model_copy(update={"seeds": tuple(range(num_seeds))})


@pytest.mark.parametrize(("num_arms", "needed"), [(2, 6), (3, 7)])
def test_too_few_seeds_are_told_with_the_number_that_is_enough(num_arms, needed):
    study = sample_study(arms=("uniform", "linear_decay", "random")[:num_arms])
    few = judge_detectable(with_seeds(study, needed - 1), None)
    enough = judge_detectable(with_seeds(study, needed), None)
    assert not few.has_enough_seeds
    assert f"Set seeds: {needed} or more" in few.sentences[0]
    assert enough.has_enough_seeds
    assert f"needs {needed} seeds; this study has {needed}: enough" in enough.sentences[0]


def test_without_an_earlier_study_the_difference_is_not_known():
    found = judge_detectable(with_seeds(sample_study(), 8), None)
    assert found.minimum_nats is None
    assert "not known before its first run" in found.sentences[1]


def test_an_earlier_study_gives_the_spread(earlier):
    arms = ("uniform", "linear_decay")
    study = with_seeds(sample_study(arms=arms), 8)
    found = judge_detectable(study, as_pilot(earlier))
    baseline, treated = ([run.scores["test_loss"] for run in earlier.reported(arm)] for arm in arms)
    spread = stdev(mine - theirs for mine, theirs in zip(treated, baseline, strict=True))
    expected = minimum_detectable_difference(spread, 8, level=0.95, num_comparisons=1).difference
    assert found.minimum_nats == pytest.approx(expected)
    assert f"{expected:.4f} nats" in found.sentences[1]


def test_the_seeds_that_the_margin_needs_are_told_also_where_these_are_too_few(earlier):
    arms = ("uniform", "linear_decay")
    spread = as_pilot(earlier).spread_for(sample_study(arms=arms))
    needed = seeds_needed(spread.sd_nats, 0.005, level=0.95, num_comparisons=1).n
    for num_seeds in (3, 8):
        found = judge_detectable(with_seeds(sample_study(arms=arms), num_seeds), as_pilot(earlier))
        text = " ".join(found.sentences)
        assert f"0.005 nats, this study's margin of equivalence, take {needed:,} seeds." in text
        twice = minimum_detectable_difference(spread.sd_nats, 2 * num_seeds, level=0.95, num_comparisons=1).difference
        assert f"{2 * num_seeds} seeds find one of {twice:.4f} nats" in text
        assert f"{spread.sd_nats:.4f} nats, median of 1 comparison over 3 seeds. So few seeds tell no more" in text
        assert (found.minimum_nats is None) == (num_seeds == 3)


def test_an_earlier_study_without_the_baseline_or_finished_runs_says_nothing(earlier):
    study = with_seeds(sample_study(arms=("uniform", "linear_decay")), 8)
    pending = replace(earlier, runs=tuple(replace(run, status="pending", scores={}) for run in earlier.runs))
    renamed = study.model_copy(update={"compare": study.compare.model_copy(update={"baseline": "linear_decay"})})
    assert judge_detectable(study, as_pilot(pending)).minimum_nats is None
    assert (
        judge_detectable(
            renamed, as_pilot(replace(earlier, study={**earlier.study, "arms": earlier.study["arms"][:1]}))
        ).minimum_nats
        is None
    )


def test_one_arm_compares_nothing():
    assert judge_detectable(sample_study(arms=("uniform",)), None).sentences == ("One arm: nothing is compared.",)


def test_a_level_that_no_number_of_seeds_reaches_is_told():
    study = sample_study()
    strict = study.model_copy(update={"compare": study.compare.model_copy(update={"level": 0.999999})})
    found = judge_detectable(with_seeds(strict, 100), None)
    assert not found.has_enough_seeds
    assert "No difference can be shown" in found.sentences[0]
