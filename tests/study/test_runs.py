"""A run's id changes with everything that can change its result, and with nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from rankwise.study.config import Arm, EvaluateSettings
from rankwise.study.load import parse_study
from rankwise.study.plan import report_runs, tuning_runs
from rankwise.study.runs import Run

GOLDEN = Path(__file__).parents[1] / "golden" / "run_ids.json"
LABELS = {"name", "base.model", "base.revision", "data.source", "train.learning_rates"}
"""Settings of an arm that cannot change a run: names, where things came from, and the candidates that were not used."""
TOGETHER: dict[str, dict[str, Any]] = {"budget.params": {"rank": None}, "budget.fraction": {"rank": None}}
"""What has to change with a setting for the section to stay valid."""

ARM = Arm(
    name="decay",
    strategy="linear_decay",
    base={"dtype": "float32"},
    data={"train": 20},
    targets=("q_proj", "v_proj"),
    budget={"rank": 8, "min_rank": 2, "max_rank": 16},
    train={"learning_rates": (1e-3, 3e-3)},
)
RUN = {"arm": ARM, "learning_rate": 1e-3, "seed": 0, "base_fingerprint": "b" * 8, "data_fingerprint": "d" * 8}


def settings(values: dict[str, Any], above: str = "") -> list[str]:
    """Every setting of an arm by its dotted name."""
    sections = {"base", "data", "budget", "train", "scaling", "strategy_settings", "evaluate"}
    return [
        name
        for key, value in values.items()
        for name in (settings(value, f"{key}.") if key in sections and not above else [above + key])
    ]


def others(value: Any) -> list[Any]:
    """Values of the same kind; which of them a setting allows is for validation to say."""
    words = ["float16", "int8", "eager", "plain", "linear", "rslora", "gaussian", "uniform", "another"]
    match value:
        case bool():
            return [not value]
        case int() | float():
            return [value / 2, value + 1, value + 0.25]
        case str():
            return words
        case list():
            return [value[:1], [item / 2 for item in value if isinstance(item, float)], ["another"]]
        case dict():
            return [{"key": 1}]
    return [0.5, 3, "another", {"first": 2.0}]


def changed(name: str) -> Arm:
    """The arm with another value of one setting."""
    section, _, key = name.rpartition(".")
    for value in others(ARM.model_dump(mode="json")[section][key] if section else ARM.model_dump(mode="json")[key]):
        values = ARM.model_dump(mode="json")
        (values[section] if section else values).update({key: value, **TOGETHER.get(name, {})})
        if name == "strategy":
            values["strategy_settings"] = {}
        try:
            arm = Arm.model_validate(values)
        except ValidationError:
            continue
        if arm != ARM:
            return arm
    raise AssertionError(f"no other value of {name} is known; add one to `others`")


@pytest.mark.parametrize("name", settings(ARM.model_dump(mode="json")))
def test_an_id_changes_with_every_setting_but_labels(name):
    same = Run(**RUN).id == Run(**{**RUN, "arm": changed(name)}).id
    assert same == (name in LABELS)


def test_every_label_is_a_setting():
    assert set(settings(ARM.model_dump(mode="json"))) >= LABELS


@pytest.mark.parametrize(
    ("key", "value"), [("learning_rate", 3e-3), ("seed", 1), ("base_fingerprint", "c"), ("data_fingerprint", "c")]
)
def test_an_id_changes_with_what_a_run_adds_to_its_arm(key, value):
    assert Run(**RUN).id != Run(**{**RUN, key: value}).id


def test_a_value_that_is_left_out_and_one_that_is_spelled_out_are_the_same():
    short = Arm(name="a", strategy="linear_decay", budget={"rank": 8})
    spelled = Arm.model_validate({**short.model_dump(), "train": {"epochs": 3, "clip_norm": 1, "betas": [0.9, 0.999]}})
    spelled = Arm.model_validate(
        {**spelled.model_dump(), "strategy_settings": {"first": 1.5, "last": 0.5}, "dropout": 0}
    )
    assert Run(**{**RUN, "arm": short}).id == Run(**{**RUN, "arm": spelled}).id


def test_an_id_is_what_its_specification_says():
    run = Run(**RUN)
    assert json.loads(json.dumps(run.spec())) == run.spec()
    assert len(run.id) == 12
    assert int(run.id, 16) >= 0


def test_a_run_survives_json():
    run = Run(**RUN)
    assert Run.model_validate_json(run.model_dump_json()) == run


def test_a_run_that_tunes_is_the_same_whatever_reported_runs_measure():
    measured = ARM.model_copy(update={"evaluate": EvaluateSettings(generate=True)})
    tuning = {**RUN, "scores_test": False}
    assert Run(**tuning).id == Run(**{**tuning, "arm": measured}).id


def test_ids_of_a_fixed_study_have_not_changed(text):
    """They change only with a commit that says why: every ledger of the past holds these."""
    study = parse_study(text, origin="golden")
    fingerprints = {arm.name: ("base", "data") for arm in study.arms}
    planned = tuning_runs(study, fingerprints) + report_runs(
        study, {arm.name: 1e-3 for arm in study.arms}, fingerprints
    )
    found = [
        f"{plan.purpose} {plan.run.arm.name} {plan.run.learning_rate:g} {plan.run.seed} {plan.run.id}"
        for plan in planned
    ]
    assert found == json.loads(GOLDEN.read_text(encoding="utf-8"))
