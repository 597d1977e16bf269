import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.numpy import load_file
from torch import nn

from rankwise.errors import AdapterError
from rankwise.lora.export import bake, check_layers, merge, shortest_targets, write_adapter
from rankwise.lora.peft_folder import CONFIG_NAME, WEIGHTS_NAME
from rankwise.lora.saved_adapter import SavedLayer, read_adapter
from tests.families import FAMILIES, family
from tests.lora.foreign import CONFIGS, write_foreign
from tests.lora.test_peft_folder import IDS, SCALINGS, write_random
from tests.tiny import tiny_llama


def layer(rank: int = 2, scale: float = 0.3, name: str = "model.layers.0.self_attn.q_proj") -> SavedLayer:
    rng = np.random.default_rng(0)
    down, up = rng.standard_normal((rank, 16)), rng.standard_normal((16, rank))
    return SavedLayer(name=name, down_rD=down.astype(np.float32), up_Fr=up.astype(np.float32), scale=scale)


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def test_a_baked_layer_has_the_same_product_at_scale_one_and_zeros_beyond():
    original = layer()
    (baked,) = bake([original], 5)
    assert (baked.rank, baked.scale, baked.name) == (5, 1.0, original.name)
    assert baked.down_rD.dtype == baked.up_Fr.dtype == np.float32
    np.testing.assert_allclose(baked.up_Fr @ baked.down_rD, 0.3 * original.up_Fr @ original.down_rD, rtol=1e-5)
    assert not baked.down_rD[2:].any()
    assert not baked.up_Fr[:, 2:].any()


def test_baking_rounds_each_number_once():
    exact = layer().up_Fr.astype(np.float64) * 0.3
    (baked,) = bake([layer()], 2)
    assert np.array_equal(baked.up_Fr, exact.astype(np.float32))


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to")
@pytest.mark.parametrize("kind", ["peft", "baked"])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_written_again_computes_what_the_pack_computed(name, kind, tmp_path):
    expected = write_random(tmp_path / "adapter", name, SCALINGS["rslora"])
    layers = read_adapter(tmp_path / "adapter").layers
    (tmp_path / "out").mkdir()
    write_adapter(tmp_path / "out", bake(layers, 4) if kind == "baked" else layers, family(name), base_name="x")
    found = logits(PeftModel.from_pretrained(family(name), tmp_path / "out"))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_conv1d_is_said_so_that_peft_does_not_have_to_guess(tmp_path, recwarn):
    write_random(tmp_path / "adapter", "gpt2")
    (tmp_path / "out").mkdir()
    write_adapter(tmp_path / "out", read_adapter(tmp_path / "adapter").layers, family("gpt2"), base_name="x")
    PeftModel.from_pretrained(family("gpt2"), tmp_path / "out")
    assert not [warning for warning in recwarn if "fan_in_fan_out" in str(warning.message)]


def test_the_files_of_a_baked_adapter_hold_what_was_promised(tmp_path):
    write_random(tmp_path / "adapter", scaling=SCALINGS["constant"])
    (tmp_path / "out").mkdir()
    layers = read_adapter(tmp_path / "adapter").layers
    write_adapter(tmp_path / "out", bake(layers, 8), family("llama"), base_name="x", revision="v1")
    config = json.loads((tmp_path / "out" / CONFIG_NAME).read_text())
    assert (config["r"], config["lora_alpha"], config["use_rslora"]) == (8, 8, False)
    assert config["rank_pattern"] == config["alpha_pattern"] == {}
    assert config["init_lora_weights"] is True
    assert (config["base_model_name_or_path"], config["revision"]) == ("x", "v1")
    assert sorted(config["target_modules"]) == sorted({layer.name.rpartition(".")[2] for layer in layers})
    flat = load_file(tmp_path / "out" / WEIGHTS_NAME)
    assert len(flat) == 2 * len(layers)
    for layer_ in layers:
        key = f"base_model.model.{layer_.name}"
        assert flat[f"{key}.lora_A.weight"].shape == (8, layer_.down_rD.shape[1])
        assert flat[f"{key}.lora_B.weight"].shape == (layer_.up_Fr.shape[0], 8)
    assert {value.dtype for value in flat.values()} == {np.dtype(np.float32)}


def test_patterns_are_written_only_where_ranks_or_scales_differ(tmp_path):
    for name, layers in {
        "same": [layer(), layer(name="model.layers.1.self_attn.q_proj")],
        "ranks": [layer(), layer(rank=3, name="model.layers.1.self_attn.q_proj")],
        "scales": [layer(), layer(scale=0.5, name="model.layers.1.self_attn.q_proj")],
    }.items():
        (tmp_path / name).mkdir()
        write_adapter(tmp_path / name, layers, tiny_llama(), base_name="x")
        config = json.loads((tmp_path / name / CONFIG_NAME).read_text())
        assert bool(config["rank_pattern"]) == bool(config["alpha_pattern"]) == (name != "same")
        assert read_adapter(tmp_path / name).scales == pytest.approx({one.name: one.scale for one in layers})


def test_targets_are_short_only_where_they_mean_the_same():
    model = tiny_llama()
    both = [f"model.layers.{block}.self_attn.q_proj" for block in (0, 1)]
    assert shortest_targets(model, both) == ["q_proj"]
    assert shortest_targets(model, both[:1]) == both[:1]
    assert shortest_targets(model, [*both, "lm_head"]) == ["lm_head", "q_proj"]
    assert shortest_targets(family("gpt2"), ["transformer.h.0.attn.c_proj"]) == ["transformer.h.0.attn.c_proj"]


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to")
@pytest.mark.parametrize("name", FAMILIES)
def test_a_merged_model_computes_what_the_adapted_one_did(name, tmp_path):
    expected = write_random(tmp_path, name, SCALINGS["constant"])
    model = family(name)
    assert merge(model, read_adapter(tmp_path).layers, torch.float32) == 0.0
    torch.testing.assert_close(logits(model), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("config", CONFIGS)
def test_merging_is_what_peft_does(config, tmp_path):
    write_foreign(tmp_path, tiny_llama(), **CONFIGS[config])
    merged = PeftModel.from_pretrained(tiny_llama(), tmp_path).merge_and_unload()
    model = tiny_llama()
    merge(model, read_adapter(tmp_path).layers, torch.float32)
    for (name, found), expected in zip(model.state_dict().items(), merged.state_dict().values(), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6, msg=name)


def tied_llama() -> nn.Module:
    model = tiny_llama()
    model.config.tie_word_embeddings = True
    model.tie_weights()
    assert model.lm_head.weight is model.model.embed_tokens.weight
    return model


def test_a_tied_head_gets_its_own_weights_and_the_embeddings_stay(tmp_path):
    model = tied_llama()
    embeddings = model.model.embed_tokens.weight.detach().clone()
    adapted = SavedLayer(
        name="lm_head", down_rD=np.ones((1, 16), np.float32), up_Fr=np.ones((64, 1), np.float32), scale=0.5
    )
    merge(model, [adapted], torch.float32)
    assert torch.equal(model.model.embed_tokens.weight, embeddings)
    assert torch.equal(model.lm_head.weight, embeddings + 0.5)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert torch.equal(again.lm_head.weight, embeddings + 0.5)
    assert torch.equal(again.model.embed_tokens.weight, embeddings)


def test_rounding_is_measured_against_the_update():
    def rounding(scale: float) -> float:
        return merge(tiny_llama(), [layer(scale=scale)], torch.bfloat16)

    assert rounding(1.0) < 0.01
    assert rounding(1e-6) > 1
    assert merge(tiny_llama(), [layer(scale=1e-6)], torch.float32) == 0.0


def test_rounded_weights_leave_buffers_exact():
    model = tiny_llama()
    merge(model, [layer()], torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert {buffer.dtype for buffer in model.buffers()} == {torch.float32}


def test_layers_without_a_matrix_of_numbers_cannot_be_merged():
    model = tiny_llama()
    check_layers(model, [layer()], Path("adapter"))
    quantized = model.model.layers[0].self_attn.q_proj
    quantized.weight = nn.Parameter(torch.zeros(128, 1, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(AdapterError, match="q_proj is of class Linear"):
        check_layers(model, [layer()], Path("adapter"))
    with pytest.raises(AdapterError, match="Embedding"):
        check_layers(model, [layer(name="model.embed_tokens")], Path("adapter"))
