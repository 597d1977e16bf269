import json
import shutil
from dataclasses import replace

import pytest
from transformers import AutoConfig

from rankwise.errors import DataError, ModelError, PackError
from rankwise.execution.packing import cut_packs
from rankwise.execution.planning import plan_study
from rankwise.execution.sizing import size_runs
from rankwise.execution.workbench import Workbench
from rankwise.models.load import load_base
from rankwise.models.sites import find_sites
from rankwise.study import parse_study
from rankwise.study.config import BaseSettings
from rankwise.study.plan import report_runs, tuning_runs
from rankwise.training.allocate import plan_rank_map
from rankwise.training.engine import EngineOptions
from tests.execution.conftest import STUDY


@pytest.fixture(scope="module")
def without_weights(small_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("no-weights") / "model"
    return shutil.copytree(small_model, folder, ignore=shutil.ignore_patterns("*.safetensors"))


def plan(study, *, limit_bytes=None, max_slots=16):
    return plan_study(study, Workbench(), engine=EngineOptions(), limit_bytes=limit_bytes, max_slots=max_slots)


@pytest.fixture(scope="module")
def planned(small_study):
    return plan(small_study)


@pytest.fixture(scope="module")
def fingerprints(small_study):
    return Workbench().fingerprints(small_study)


def test_tuning_runs_are_exactly_those_that_will_be_trained(planned, small_study, fingerprints):
    expected = [(p.run.id, p.run.learning_rate, p.run.seed) for p in tuning_runs(small_study, fingerprints)]
    assert [(run.id, run.learning_rate, run.seed) for run in planned.runs if run.purpose == "tuning"] == expected


def test_a_reported_run_of_a_tuned_arm_has_no_id_and_no_learning_rate_yet(planned, small_study, fingerprints):
    reported = [run for run in planned.runs if run.purpose == "report"]
    assert [(run.arm.name, run.seed) for run in reported] == [
        (arm, seed) for arm in ("uniform", "linear_decay", "empirical") for seed in (0, 1)
    ]
    tuned, untuned = reported[:4], reported[4:]
    assert all(run.id is None and run.learning_rate is None for run in tuned)
    rates = {arm.name: arm.train.learning_rates[0] for arm in small_study.arms}
    expected = [p.run.id for p in report_runs(small_study, rates, fingerprints) if p.run.arm.name == "empirical"]
    assert [run.id for run in untuned] == expected
    assert {run.learning_rate for run in untuned} == {3e-3}


def test_ranks_are_exact_where_nothing_is_measured_and_unknown_elsewhere(planned, small_study):
    uniform, decay, empirical = planned.arms
    base = load_base(small_study.arms[0].base)
    run = next(
        p.run
        for p in tuning_runs(small_study, {a.name: ("", "") for a in small_study.arms})
        if p.run.arm.name == "linear_decay"
    )
    rank_map = plan_rank_map(run, find_sites(base.model), base.num_params, {})
    assert (uniform.min_rank, uniform.max_rank, uniform.residual_params) == (2, 2, 0)
    assert (decay.min_rank, decay.max_rank, decay.params) == (min(rank_map.ranks), max(rank_map.ranks), rank_map.params)
    assert decay.num_sites == len(rank_map.sites)
    assert empirical.budget_params == uniform.budget_params
    assert (empirical.min_rank, empirical.max_rank, empirical.params, empirical.residual_params) == (None,) * 4


def test_packs_are_those_that_the_study_cuts_and_hold_every_run_once(small_study, fingerprints):
    found = plan(small_study, max_slots=3)
    assert sorted(place for pack in found.packs for place in pack.runs) == list(range(len(found.runs)))
    sized = size_runs(tuning_runs(small_study, fingerprints), Workbench(), EngineOptions())
    expected = [
        ([run.planned.run.id for run in pack.items], pack.predicted_bytes)
        for pack in cut_packs(sized, limit_bytes=None, max_slots=3)
    ]
    tuning = [pack for pack in found.packs if pack.purpose == "tuning"]
    assert [([found.runs[i].id for i in pack.runs], pack.memory.total_bytes) for pack in tuning] == expected
    assert all(found.runs[place].purpose == pack.purpose for pack in found.packs for place in pack.runs)


def test_the_json_has_the_promised_keys_and_adds_up(planned):
    document = json.loads(json.dumps(planned.to_dict(), allow_nan=False))
    assert list(document) == ["study", "num_runs", "num_packs", "minimum_detectable_nats", "predicted", "runs", "packs"]
    assert list(document["predicted"]) == ["memory_bytes", "wall_s"]
    assert (document["num_runs"], document["num_packs"]) == (len(document["runs"]), len(document["packs"])) == (10, 2)
    packs = document["packs"]
    assert document["predicted"]["memory_bytes"] == max(pack["predicted"]["memory_bytes"] for pack in packs)
    assert document["predicted"]["wall_s"] == pytest.approx(sum(pack["predicted"]["wall_s"] for pack in packs))
    for pack in packs:
        assert pack["micro_tokens"] == 2048
        assert sum(pack["memory_terms"].values()) == pack["predicted"]["memory_bytes"]
        assert pack["predicted"]["wall_s"] > 0


def test_a_wide_model_gets_smaller_micro_batches_and_a_given_size_stays(small_study, monkeypatch, fingerprints):
    planned = tuning_runs(small_study, fingerprints)
    assert {pack.micro_tokens for pack in plan(small_study).packs} == {2048}
    monkeypatch.setattr("rankwise.packing.activations.TARGET_BYTES", 1_000_000)
    narrow = {run.micro_tokens for run in size_runs(planned, Workbench(), EngineOptions())}
    assert max(narrow) < 2048
    assert min(narrow) >= size_runs(planned, Workbench(), EngineOptions())[0].data.longest_tokens
    given = size_runs(planned, Workbench(), EngineOptions(micro_tokens=777))
    assert {run.micro_tokens for run in given} == {777}


def test_a_run_that_fits_no_pack_is_refused_by_name(small_study):
    with pytest.raises(PackError, match=r"uniform \(learning rate 0.001, seed 1000\) alone needs .* limit is 0.00 GiB"):
        plan(small_study, limit_bytes=1000)


def test_a_limit_makes_smaller_packs(small_study, planned):
    limit = planned.largest_pack.memory.total_bytes - 1
    limited = plan(small_study, limit_bytes=limit)
    assert len(limited.packs) > len(planned.packs)
    assert limited.largest_pack.memory.total_bytes <= limit


def test_without_weights_all_but_the_ids_is_known(without_weights, planned):
    found = plan(parse_study(STUDY.format(folder=without_weights), origin="x.yaml"))
    assert all(run.id is None for run in found.runs)
    assert [replace(run, id=None) for run in planned.runs] == list(found.runs)
    assert [pack.memory for pack in found.packs] == [pack.memory for pack in planned.packs]
    (note,) = found.notes
    assert "ids of its runs cannot be known" in note
    assert str(without_weights) in note


def test_two_models_without_weights_are_not_taken_for_one(without_weights, tmp_path):
    other = shutil.copytree(without_weights, tmp_path / "other")
    arms = f"[uniform, {{name: other, strategy: uniform, base: {{model: {other}}}}}]"
    text = STUDY.format(folder=without_weights).rsplit("arms:", 1)[0]
    found = plan(parse_study(f"{text}arms: {arms}\nseeds: 2\n", origin="x.yaml"))
    assert len(found.runs) == 2 * (2 + 2)
    assert len(found.packs) == 4
    assert len(found.notes) == 2


def test_arms_of_one_specification_share_their_runs(small_model):
    text = STUDY.format(folder=small_model).rsplit("arms:", 1)[0]
    found = plan(parse_study(f"{text}arms: [uniform, {{name: again, strategy: uniform}}]\nseeds: 2\n", origin="x.yaml"))
    assert len(found.runs) == 2 + 2
    assert found.notes == ("4 runs of arm again are also those of uniform: trained once.",)
    assert found.arms[0].params == found.arms[1].params


def test_no_weights_are_loaded(small_study, monkeypatch):
    def refuse(*_):
        raise AssertionError("a plan loaded the base model")

    monkeypatch.setattr("rankwise.execution.workbench.load_base", refuse)
    assert plan(small_study).runs


def test_a_model_or_data_set_that_is_not_there_is_refused(small_model, tmp_path):
    text = STUDY.format(folder=small_model)
    with pytest.raises(ModelError, match="no folder"):
        plan(parse_study(text.replace(str(small_model), str(tmp_path / "none")), origin="x.yaml"))
    with pytest.raises(DataError, match="no file"):
        plan(parse_study(text.replace("source: skills", "source: none.json"), origin="x.yaml"))


def test_time_grows_about_linearly_with_the_epochs(small_model):
    text = STUDY.format(folder=small_model).rsplit("arms:", 1)[0] + "arms: [uniform]\nseeds: 2\n"
    one, three, four = (
        plan(parse_study(text.replace("epochs: 1", f"epochs: {num}"), origin="x.yaml")).wall_s for num in (1, 3, 4)
    )
    assert three - one == pytest.approx(2 * (four - three), rel=0.1)  # each epoch cuts other passes
    assert 0 < four - three < one  # scoring takes time, too


def test_the_shape_is_that_of_the_loaded_model(small_model):
    settings = BaseSettings(model=str(small_model), dtype="float32")
    shape, base = Workbench().shape(settings), load_base(settings)
    assert shape.num_params == base.num_params
    assert shape.settings == base.settings
    assert shape.device == base.device
    assert find_sites(shape.model) == find_sites(base.model)
    assert shape.num_block_params == sum(site.in_features * site.out_features for site in find_sites(base.model))


@pytest.mark.parametrize("name", ["DialoGPT-medium", "phi-2", "TinyLlama-1.1B-Chat-v1.0"])
def test_published_models_are_sized_from_their_configuration_alone(shared_data, name):
    folder = shared_data / "models" / name
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    shape = Workbench().shape(BaseSettings(model=str(folder)))
    config = AutoConfig.from_pretrained(folder)
    head = config.vocab_size * config.hidden_size
    positions = getattr(config, "n_positions", 0) * config.hidden_size if config.model_type == "gpt2" else 0
    embeddings = head * (1 if config.tie_word_embeddings else 2) + positions
    biases_and_norms = shape.num_params - embeddings - shape.num_block_params
    assert 0 <= biases_and_norms < 0.01 * shape.num_params
