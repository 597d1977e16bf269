"""From a file to a study, and what a file gets that is not one."""

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rankwise.allocation.strategies import STRATEGIES
from rankwise.errors import StudyError
from rankwise.study.document import read_document
from rankwise.study.load import MAX_FILE_BYTES, load_resolved, load_study, parse_study, resolved_json
from rankwise.study.overrides import ARM_KEYS

STUDIES = sorted((Path(__file__).parents[2] / "studies").glob("*.yaml"))


def parse(text):
    return parse_study(text, origin="x.yaml")


def refusal(text):
    """The lines of the error, without the origin."""
    with pytest.raises(StudyError) as caught:
        parse(text)
    lines = str(caught.value).split("\n")
    assert all(line.startswith("x.yaml:") for line in lines)
    return [line.removeprefix("x.yaml:") for line in lines]


def test_a_study_has_every_setting_resolved_into_its_arms(text):
    study = parse(text)
    assert [arm.name for arm in study.arms] == ["uniform", "wide", "linear_decay"]
    assert [arm.data.train for arm in study.arms] == [20, 20, 10]
    assert [arm.train.epochs for arm in study.arms] == [2, 1, 2]
    assert {arm.train.learning_rates for arm in study.arms} == {(1e-3, 3e-3)}
    assert study.arm("linear_decay").strategy_settings == {"first": 2.0, "last": 0.5}
    assert (study.seeds, study.tuning_seeds) == ((0, 1, 2), (1000,))


def test_a_budget_of_an_arm_replaces_the_size_and_keeps_the_limits(text):
    budget = parse(text).arm("wide").budget
    assert (budget.rank, budget.params, budget.min_rank) == (None, 5000, 2)


@pytest.mark.parametrize(
    ("written", "seeds"), [("seeds: 3", (0, 1, 2)), ("seeds: 1", (0,)), ("seeds: [7, 3]", (7, 3)), ("seeds: [0]", (0,))]
)
def test_seeds_are_a_number_or_a_list(text, written, seeds):
    assert parse(text.replace("seeds: 3", written)).seeds == seeds


def test_a_number_of_tuning_seeds_starts_after_every_seed_that_a_number_can_give(text):
    study = parse(text.replace("seeds: 3", "seeds: 1000\ntuning_seeds: 2"))
    assert (study.seeds[-1], study.tuning_seeds) == (999, (1000, 1001))


@pytest.mark.parametrize(
    ("right", "wrong", "problem"),
    [
        (
            "hypothesis:",
            "hypotesis:",
            "2: hypotesis is not a setting of a study; did you mean hypothesis? Allowed: name",
        ),
        ("hypothesis:", "hypotesis:", "1: hypothesis is missing; a study states in a sentence what it asks."),
        ("name: small", "name: a b", '1: name is "a b"; it should match pattern'),
        ("name: small", "name: ../x", '1: name is "../x"; it should match pattern'),
        ("name: small", "name: 7", "1: name is 7; it should be text, in quotes"),
        (
            "float32",
            "float23",
            '3: base.dtype is "float23"; did you mean float32? Allowed: auto, float32, bfloat16, float16.',
        ),
        (
            "model: nano",
            "modle: nano",
            "3: base.modle is not a setting of base; did you mean model? Allowed: model, rev",
        ),
        ("model: nano", "model: ''", '3: base.model is ""; it should have at least 1 character.'),
        ("model: nano", "trust_remote_code: yes", '3: base.trust_remote_code is "yes"; it should be a valid boolean.'),
        ("  train: 20", "  train: 0", "6: data.train is 0; it should be greater than 0."),
        ("  train: 20", "  train: many", '6: data.train is "many"; it should be a valid integer.'),
        ("  train: 20", "  train: 20\n  options: [1]", "7: data.options is [1]; it should be a mapping of settings."),
        ("rank: 8", "rank: true", "7: budget.rank is true; it should be a valid integer."),
        ("rank: 8", "rank: 8.0", "7: budget.rank is 8.0; it should be a valid integer."),
        (
            "rank: 8",
            "rank: 8, fraction: 0.1",
            "exactly one of rank, params and fraction is needed, not rank and fraction.",
        ),
        ("rank: 8", "max_rank: 1, rank: 8", "max_rank (1) is below min_rank (2)."),
        ("{rank: 8, min_rank: 2}", "8", "7: budget is 8; it should be a mapping of settings."),
        (
            "budget: {rank: 8, min_rank: 2}\n",
            "",
            "1: budget is missing; give it study-wide or in the arm, such as {rank: 8}.",
        ),
        ("{epochs: 2,", "{epochs: .inf,", '8: train.epochs is ".inf"; it should be a valid number.'),
        ("[1e-3, 3e-3]", "[1e-3, 0.001]", "8: train.learning_rates is [0.001, 0.001]: 0.001 is given more than once."),
        ("[1e-3, 3e-3]", "[1e-3, -1]", "8: train.learning_rates[1] is -1; it should be greater than 0."),
        ("[1e-3, 3e-3]", "1e-3", "8: train.learning_rates is 0.001; it should be a list."),
        ("{epochs: 2,", "{betas: [0.9],", "8: train.betas[1] is missing."),
        (
            "- uniform\n",
            "- unifrom\n",
            '10: arms[0].strategy is "unifrom"; did you mean uniform? Allowed: uniform, linear_',
        ),
        ("- uniform\n", "- 5\n", "10: arms[0] is 5; it should be a mapping of settings."),
        ("- uniform\n", "- {first: 2}\n", "10: arms[0].strategy is missing; an arm is the name of a strategy"),
        ("- uniform\n", "- {strategy: 5}\n", "10: arms[0].strategy is 5; it should be text"),
        (
            "name: wide",
            "name: uniform",
            "11: arms[1] has the name of arms[0], uniform; give one of them another `name`; see li",
        ),
        (
            "{epochs: 1}",
            "{epoch: 1}",
            "11: arms[1].train.epoch is not a setting of train; did you mean epochs?",
        ),
        ("{epochs: 1}", "5", "11: arms[1].train is 5; it should be a mapping of settings."),
        ("params: 5000", "params: 5000, rank: 3", "11: arms[1].budget is"),
        (
            "    first: 2",
            "    frist: 2",
            "13: arms[2].frist is not a setting of linear_decay; did you mean first? Allowed: firs",
        ),
        ("    first: 2", "    first: -2", "13: arms[2].first is -2; it should be greater than 0."),
        ("    first: 2", "    first: '2'", '13: arms[2].first is "2"; it should be a valid number.'),
        ("    first: 2", "    first: 0.1", "last (0.5) is above first (0.1); that is linear_growth."),
        ("    first: 2", "    targets: [1]", "13: arms[2].targets[0] is 1; it should be text"),
        (
            "    first: 2",
            "    targets: []",
            "13: arms[2].targets is []; it should be all-linear, attention, mlp, or a list",
        ),
        ("    first: 2", "    targets: ['(']", "( is neither a module name nor a regular expression: missing )"),
        ("    first: 2", "    dropout: 1.0", "13: arms[2].dropout is 1.0; it should be less than 1."),
        (
            "    first: 2",
            "    init: pisa",
            '13: arms[2].init is "pisa"; did you mean pissa? Allowed: kaiming, gaussian, pissa, ',
        ),
        (
            "    first: 2",
            "    init: pissa\n    base: {quantization: nf4}",
            '13: arms[2].init is "pissa": it takes its initial product off the base weight, which is stored as nf4 and '
            "shared; use kaiming, gaussian, eva or gora, or base.quantization none.",
        ),
        (
            "    first: 2",
            "    train: {lr_factors: {frist: 2.0}}",
            "13: arms[2].train.lr_factors.frist is not a setting of lr_factors; did you mean first? Allowed: first, last, "
            "attention, mlp, rank_power.",
        ),
        (
            "    first: 2",
            "    train: {lr_factors: {mlp: 0}}",
            "13: arms[2].train.lr_factors.mlp is 0; it should be greater",
        ),
        (
            "    first: 2",
            "    train: {lr_factors: {rank_power: 9}}",
            "rank_power is 9; it should be less than or equal to 4.",
        ),
        ("    first: 2", "    train: {lr_factors: 2}", "13: arms[2].train.lr_factors is 2; it should be a mapping"),
        (
            "    first: 2",
            "    train: {lora_plus_ratio: -1}",
            "13: arms[2].train.lora_plus_ratio is -1; it should be greater",
        ),
        ("linear_decay\n    first: 2", "shuffled\n    of: unifrom", "did you mean 'uniform'"),
        ("seeds: 3", "", "1: seeds is missing; a study needs its number of seeds, such as 8."),
        (
            "seeds: 3",
            "seeds: 0",
            "15: seeds is 0; it should be a list of at least one seed, or their number from 1 to 1000.",
        ),
        ("seeds: 3", "seeds: 1e9", "15: seeds is 1000000000.0; it should be a list of at least one seed"),
        ("seeds: 3", "seeds: 999999999", "15: seeds is 999999999; it should be a list of at least one seed"),
        ("seeds: 3", "seeds: true", "15: seeds is true; it should be a list of at least one seed"),
        ("seeds: 3", "seeds: [0, 0]", "15: seeds is [0, 0]: 0 is given more than once."),
        ("seeds: 3", "seeds: [-1]", "15: seeds[0] is -1; it should be greater than or equal to 0."),
        (
            "seeds: 3",
            "seeds: 3\ntuning_seeds: [2, 9]",
            "16: tuning_seeds shares 2 with seeds; a seed that chose a learning",
        ),
        (
            "seeds: 3",
            "seeds: 3\ncompare: {baseline: wied}",
            "16: compare.baseline is wied, which is no arm; arms: uniform,",
        ),
        (
            "seeds: 3",
            "seeds: 3\nscaling: {alpa: 1}",
            "16: scaling.alpa is not a setting of scaling; did you mean alpha?",
        ),
    ],
)
def test_a_wrong_setting_is_named_with_line_value_and_what_is_allowed(text, right, wrong, problem):
    assert text.count(right) == 1
    lines = refusal(text.replace(right, wrong))
    assert [line for line in lines if problem in line], "\n".join(lines)


def test_everything_that_is_wrong_is_told_at_once_and_in_order(text):
    wrong = (
        text.replace("nano", "''")
        .replace("epochs: 1", "epoch: 1")
        .replace("first", "frist")
        .replace("seeds: 3", "seeds: x")
    )
    lines = refusal(wrong + "compare: {baseline: none}\n")
    assert [line.split(" ")[:2] for line in lines] == [
        ["3:", "base.model"],
        ["11:", "arms[1].train.epoch"],
        ["13:", "arms[2].frist"],
        ["15:", "seeds"],
        ["16:", "compare.baseline"],
    ]


def test_a_mistake_in_a_shared_section_is_told_once_however_many_arms_have_it(text):
    assert len(refusal(text.replace("epochs: 2", "schedule: cosinus"))) == 1


def test_a_mistake_that_every_arm_overrides_is_told_where_it_matters(text):
    wrong = text.replace("{epochs: 1}", "{epochs: 0}")
    assert refusal(wrong) == ["11: arms[1].train.epochs is 0; it should be greater than 0."]


@pytest.mark.parametrize("text", ["", "# only a comment\n", "[]", "just words", "7", "name: x\n...\n"])
def test_what_is_no_study_at_all_says_what_a_study_is(text):
    with pytest.raises(StudyError, match=r"x.yaml.*(hypothesis|seeds)"):
        parse(text)


def test_a_file_is_read_as_utf8_with_or_without_a_mark(tmp_path, text):
    file = tmp_path / "study.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + text.replace("Uneven", "Ungleiche Ränge, 不均").encode())
    assert load_study(file).hypothesis.startswith("Ungleiche Ränge, 不均")


def test_errors_of_a_file_begin_with_its_path_and_line(tmp_path, text):
    file = tmp_path / "study.yaml"
    file.write_text(text.replace("first", "frist"), encoding="utf-8")
    with pytest.raises(StudyError) as caught:
        load_study(file)
    assert str(caught.value).startswith(f"{file}:13: arms[2].frist ")


def test_what_cannot_be_read_is_named(tmp_path):
    latin, large = tmp_path / "latin.yaml", tmp_path / "large.yaml"
    latin.write_bytes("name: größe".encode("latin-1"))
    large.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    for path, message in [
        (tmp_path / "none.yaml", "No such file"),
        (tmp_path, "is a folder"),
        (latin, "byte 8 is not UTF-8"),
        (large, f"larger than {MAX_FILE_BYTES} bytes"),
        (latin / "below", "Not a directory"),
    ]:
        with pytest.raises(StudyError, match=message) as caught:
            load_study(path)
        assert str(path) in str(caught.value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_stands_where_a_value_should_the_answer_is_a_study_or_its_error(text, data):
    study = read_document(text, origin="x").value
    place, key = study, data.draw(st.sampled_from(list(study)))
    while isinstance(place[key], (dict, list)) and place[key] and data.draw(st.booleans()):
        place = place[key]
        key = data.draw(st.sampled_from(list(place) if isinstance(place, dict) else range(len(place))))
    place[key] = data.draw(
        st.sampled_from([None, True, 0, -1, 2.5, "", "a", [], [[]], [None], {}, {"a": []}, ["a", 1]])
    )
    with contextlib.suppress(StudyError):
        parsed = parse(json.dumps(study, indent=1))
        assert load_resolved(resolved_json(parsed)) == parsed


def test_a_resolved_study_comes_back_as_it_was(text):
    study = parse(text)
    assert load_resolved(resolved_json(study)) == study
    assert resolved_json(load_resolved(resolved_json(study))) == resolved_json(study)


def test_what_is_no_resolved_study_is_refused():
    for wrong in ("", "{}", "[1]", '{"name": "x"}'):
        with pytest.raises(StudyError, match="not a resolved study"):
            load_resolved(wrong)


def test_no_strategy_has_a_setting_that_an_arm_has():
    for name, strategy in STRATEGIES.items():
        assert not set(strategy.model_fields) & set(ARM_KEYS), name


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_can_be_an_arm_by_its_name_alone(name):
    study = parse(
        f"{{name: x, hypothesis: y, arms: [{name}], budget: {{rank: 2}}, seeds: 1, compare: {{baseline: {name}}}}}"
    )
    assert study.arms[0].build_strategy() == STRATEGIES[name]()


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_a_shipped_study_is_named_after_its_file_and_fair(file):
    study = load_study(file)
    assert study.name == file.stem
    compares_courses = study.name == "stability"  # how arms bear a rate, not how good they are
    compared: dict[str, object] = {"lr_factors": None, "lora_plus_ratio": 1.0}
    if compares_courses:
        compared["learning_rates"] = (1e-3,)
    assert len({arm.train.model_copy(update=compared) for arm in study.arms}) == 1, "arms are trained and tuned alike"
    has_control = any(arm.build_strategy().is_control for arm in study.arms)
    assert has_control or compares_courses or {arm.strategy for arm in study.arms} == {"uniform"}
    assert load_resolved(resolved_json(study)) == study


def test_the_shipped_studies_are_those_that_the_documents_name():
    assert {file.stem for file in STUDIES} == {
        "adaptive",
        "baselines",
        "capacity",
        "dialogpt_alpaca",
        "dialogpt_shape",
        "embedded",
        "factors",
        "growth",
        "module_sweep",
        "phi2_alpaca",
        "published",
        "published_alpaca",
        "quantization_sweep",
        "rank_sweep",
        "stability",
    }
