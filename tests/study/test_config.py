"""What the values of a study promise by themselves, however they were made."""

import json
import pickle

import pytest
from pydantic import ValidationError

from rankwise.errors import StudyError
from rankwise.study.config import (
    Arm,
    BaseSettings,
    BudgetSettings,
    CompareSettings,
    DataSettings,
    Study,
    TrainSettings,
    conflicts,
)

ARM = {"name": "uniform", "strategy": "uniform", "budget": {"rank": 4}}


def study(**changes):
    return Study.model_validate({"name": "x", "hypothesis": "h", "arms": [ARM], "seeds": [0], **changes})


@pytest.mark.parametrize("section", [BaseSettings, DataSettings, TrainSettings, CompareSettings])
def test_defaults_are_what_a_file_that_spells_them_out_would_give(section):
    spelled = section.model_validate_json(json.dumps(section().model_dump(mode="json")), strict=True)
    assert repr(spelled) == repr(section())


@pytest.mark.parametrize("sizes", [{}, {"rank": 1, "params": 1}, {"rank": 1, "params": 1, "fraction": 0.5}])
def test_a_budget_has_exactly_one_size(sizes):
    with pytest.raises(ValidationError, match="exactly one of rank, params and fraction"):
        BudgetSettings(**sizes)


def test_values_are_frozen_and_refuse_unknown_keys_and_endless_numbers():
    with pytest.raises(ValidationError, match="frozen"):
        study().seeds = (1,)
    with pytest.raises(ValidationError, match="Extra inputs"):
        study(sedes=3)
    with pytest.raises(ValidationError, match="finite"):
        TrainSettings(epochs=float("inf"))


def test_an_arm_spells_out_the_settings_of_its_strategy():
    assert Arm(**{**ARM, "strategy": "linear_decay"}).strategy_settings == {"first": 1.5, "last": 0.5}
    shuffled = Arm(**{**ARM, "strategy": "shuffled"}, strategy_settings={"of": "linear_decay"})
    assert shuffled.strategy_settings["of"] == {"strategy": "linear_decay", "first": 1.5, "last": 0.5}
    assert shuffled.build_strategy().of.first == 1.5


@pytest.mark.parametrize(
    ("strategy", "settings"), [("unifrom", {}), ("uniform", {"first": 1}), ("random", {"draw": -1})]
)
def test_an_arm_with_a_strategy_that_cannot_be_built_is_refused(strategy, settings):
    with pytest.raises(ValidationError, match="strategy_settings"):
        Arm(**{**ARM, "strategy": strategy}, strategy_settings=settings)


@pytest.mark.parametrize("name", ["", "a\nb", "\x1b[31m", "a/b", "<b>", "x" * 81, " a"])
def test_a_name_that_would_upset_a_table_or_a_terminal_is_refused(name):
    with pytest.raises(ValidationError, match="name"):
        Arm(**{**ARM, "name": name})


@pytest.mark.parametrize("name", ["uniform", "uniform-r16", "r = 8 (attention)", "rang élevé", "α=16, 50%"])
def test_an_ordinary_name_is_taken(name):
    assert Arm(**{**ARM, "name": name}).name == name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": [ARM, ARM]}, r"arms\[1\] has the name of arms\[0\], uniform"),
        ({"compare": {"baseline": "other"}}, "compare.baseline is other, which is no arm; arms: uniform"),
        ({"seeds": [1000]}, "tuning_seeds shares 1000 with seeds"),
    ],
)
def test_a_study_with_settings_that_cannot_both_hold_is_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        study(**changes)


def test_conflicts_name_both_places():
    found = conflicts(["a", "b", "a"], seeds=[1, 2], tuning_seeds=[2, 3], baseline="c")
    assert [(conflict.path, conflict.other) for conflict in found] == [
        (("arms", 2), ("arms", 0)),
        (("compare", "baseline"), None),
        (("tuning_seeds",), ("seeds",)),
    ]


def test_an_arm_is_found_by_its_name():
    assert study().arm("uniform").budget.rank == 4
    with pytest.raises(StudyError, match="study x has no arm wide; its arms: uniform"):
        study().arm("wide")


def test_a_study_survives_pickling():
    assert pickle.loads(pickle.dumps(study())) == study()
