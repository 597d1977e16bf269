import json
from pathlib import Path

import numpy as np
import pytest
from peft import LoraConfig, get_peft_model
from safetensors.numpy import load_file, save_file

from rankwise.allocation.peft_patterns import layer_patterns
from rankwise.errors import AdapterError
from rankwise.lora.attach_peft import attach_peft_adapter, attached_scales, detach_peft_adapter
from rankwise.lora.peft_folder import CONFIG_NAME, WEIGHTS_NAME
from rankwise.lora.saved_adapter import NOT_PLAIN, read_adapter, resolve_scale
from tests.lora.foreign import CONFIGS, write_foreign
from tests.lora.test_peft_folder import SCALINGS, write_random
from tests.tiny import tiny_llama


def edit(folder: Path, **changes: object) -> None:
    config = json.loads((folder / CONFIG_NAME).read_text())
    (folder / CONFIG_NAME).write_text(json.dumps(config | changes))


def refused(folder: Path) -> str:
    with pytest.raises(AdapterError) as error:
        read_adapter(folder)
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", CONFIGS)
def test_ranks_and_scales_are_those_that_peft_resolves(name, tmp_path):
    adapter = read_adapter(write_foreign(tmp_path, tiny_llama(), **CONFIGS[name]))
    model = tiny_llama()
    attach_peft_adapter(model, tmp_path)
    assert adapter.scales == pytest.approx(attached_scales(model), rel=1e-12)
    for layer in adapter.layers:
        module = model.get_submodule(layer.name)
        assert layer.rank == module.r["default"]
        assert np.array_equal(layer.down_rD, module.lora_A["default"].weight.detach().numpy())
        assert np.array_equal(layer.up_Fr, module.lora_B["default"].weight.detach().numpy())
    assert adapter.largest_rank == max(layer.rank for layer in adapter.layers)


@pytest.mark.parametrize("rule", SCALINGS)
def test_what_rankwise_wrote_is_read_with_its_scales(rule, tmp_path):
    write_random(tmp_path / "adapter", scaling=SCALINGS[rule])
    for layer in read_adapter(tmp_path / "adapter").layers:
        assert layer.scale == pytest.approx(SCALINGS[rule].at(layer.rank))


def test_patterns_that_peft_sorted_into_another_meaning_are_refused(tmp_path):
    """The first match decides while training, and saving sorts the keys: PEFT itself cannot load this adapter."""
    write_foreign(tmp_path, tiny_llama(), r=3, rank_pattern={"up_proj": 5, "layers.1.mlp.up_proj": 2})
    message = refused(tmp_path)
    assert "rank 2 by" in message
    assert "rank 5" in message
    assert "sorted" in message


def test_a_detached_model_is_the_bare_base(tmp_path):
    model, bare = tiny_llama(), tiny_llama()
    names = [name for name, _ in model.named_modules()]
    attach_peft_adapter(model, write_foreign(tmp_path, tiny_llama(), r=2))
    detach_peft_adapter(model)
    assert [name for name, _ in model.named_modules()] == names
    assert not hasattr(model, "peft_config")
    for (name, left), right in zip(model.state_dict().items(), bare.state_dict().values(), strict=True):
        assert np.array_equal(left.numpy(), right.numpy()), name


def test_patterns_of_layers_are_anchored_and_escaped(tmp_path):
    config = {"r": 1, "lora_alpha": 1, "rank_pattern": layer_patterns({"a.b": 2, "xa.b": 3})}
    ranks = [resolve_scale(tmp_path, config, name)[0] for name in ("a.b", "xa.b", "aab", "x.a.b")]
    assert ranks == [2, 3, 1, 1]


@pytest.mark.parametrize("field", NOT_PLAIN)
def test_more_than_plain_lora_is_refused_with_the_reason(field, tmp_path):
    write_foreign(tmp_path, tiny_llama(), r=2)
    edit(tmp_path, **{field: ["lm_head"]})
    message = refused(tmp_path)
    assert field in message
    assert NOT_PLAIN[field] in message


def test_dora_and_whole_modules_as_peft_writes_them_are_refused(tmp_path):
    assert "use_dora" in refused(write_foreign(tmp_path / "dora", tiny_llama(), r=2, use_dora=True))
    assert "modules_to_save" in refused(write_foreign(tmp_path / "more", tiny_llama(), modules_to_save=["lm_head"]))


def test_trained_biases_are_refused(tmp_path):
    write_foreign(tmp_path, tiny_llama(), r=2)
    edit(tmp_path, bias="lora_only")
    assert "lora_only" in refused(tmp_path)


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4", "olora", "corda", "loftq", "OLoRA"])
def test_an_init_that_changes_the_base_at_loading_is_refused_with_the_way_out(init, tmp_path):
    write_foreign(tmp_path, tiny_llama(), r=2)
    edit(tmp_path, init_lora_weights=init)
    message = refused(tmp_path)
    assert init in message
    assert "path_initial_model_for_weight_conversion" in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"r": 0}, ["rank 0", "whole number from 1"]),
        ({"r": 2.0}, ["rank 2.0"]),
        ({"r": None}, ["rank None"]),
        ({"r": 3}, ["rank 3 by", "rank 2"]),
        ({"rank_pattern": {"q_proj": 0}}, ["rank 0", "q_proj"]),
        ({"rank_pattern": ["q_proj"]}, ["rank_pattern"]),
        ({"rank_pattern": {"(": 2}}, ["rank_pattern", "regular expression"]),
        ({"alpha_pattern": {"up_proj": "8"}}, ["alpha '8'", "up_proj"]),
        ({"lora_alpha": 0}, ["alpha 0"]),
        ({"lora_alpha": float("inf")}, ["alpha inf"]),
        ({"lora_alpha": True}, ["alpha True"]),
        ({"peft_type": "LOHA"}, ["LOHA", "no other kind"]),
        ({"peft_type": "ADALORA"}, ["ADALORA"]),
    ],
)
def test_impossible_ranks_and_scales_are_refused_by_value(changes, words, tmp_path):
    write_foreign(tmp_path, tiny_llama(), r=2)
    edit(tmp_path, **changes)
    message = refused(tmp_path)
    assert all(word in message for word in words), message


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("matrix", ["lora_A", "lora_B"])
def test_weights_that_are_no_numbers_are_refused_by_name(matrix, value, tmp_path):
    write_foreign(tmp_path, tiny_llama(), r=2)
    flat = load_file(tmp_path / WEIGHTS_NAME)
    key = next(key for key in flat if matrix in key)
    flat[key] = flat[key].copy()
    flat[key][0, 0] = value
    save_file(flat, tmp_path / WEIGHTS_NAME)
    message = refused(tmp_path)
    assert matrix in message
    assert key.split(".lora_")[0].removeprefix("base_model.model.") in message


def test_copies_of_embeddings_that_peft_adds_are_refused_with_the_way_out(tmp_path):
    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["lm_head"], task_type="CAUSAL_LM"))
    model.save_pretrained(tmp_path, save_embedding_layers=True)
    assert "save_embedding_layers=False" in refused(tmp_path)


def test_a_missing_configuration_and_pickled_weights_are_refused(tmp_path):
    assert "not an adapter folder" in refused(tmp_path)
    write_foreign(tmp_path, tiny_llama(), r=2)
    (tmp_path / WEIGHTS_NAME).rename(tmp_path / "adapter_model.bin")
    assert "run code" in refused(tmp_path)
