import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.numpy import load_file, save_file

from rankwise.errors import AdapterError
from rankwise.lora.attach_peft import attach_peft_adapter
from rankwise.lora.peft_folder import CONFIG_NAME, WEIGHTS_NAME
from tests.families import FAMILIES, family
from tests.lora.test_peft_folder import IDS, SCALINGS, write_random
from tests.tiny import tiny_llama


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("rule", SCALINGS)
def test_an_attached_adapter_computes_what_the_pack_computed(name, rule, tmp_path):
    expected = write_random(tmp_path, name, SCALINGS[rule])
    model = family(name)
    attach_peft_adapter(model, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=IDS).logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        {"r": 3, "lora_alpha": 5, "use_rslora": True},
        {"r": 3, "rank_pattern": {"up_proj": 5}, "alpha_pattern": {"layers.1.mlp.up_proj": 40}},
        {"r": 2, "lora_dropout": 0.5, "layers_to_transform": [1], "layers_pattern": "layers"},
    ],
)
def test_adapters_that_peft_made_are_attached_with_its_own_rules(config, tmp_path):
    torch.manual_seed(1)
    made = LoraConfig(**config, target_modules=["q_proj", "up_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(tiny_llama(), made).save_pretrained(tmp_path)
    model = tiny_llama().eval()
    attach_peft_adapter(model, tmp_path)
    with torch.no_grad():
        expected = PeftModel.from_pretrained(tiny_llama().eval(), tmp_path)(input_ids=IDS).logits
        torch.testing.assert_close(model(input_ids=IDS).logits, expected)
    assert not model.training


def test_the_adapter_takes_the_number_format_of_its_layers(tmp_path):
    write_random(tmp_path)
    model = family("llama").to(torch.bfloat16)
    attach_peft_adapter(model, tmp_path)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def refused(model: torch.nn.Module, folder: Path) -> str:
    with pytest.raises(AdapterError) as error:
        attach_peft_adapter(model, folder)
    assert "\n" not in str(error.value)
    assert "--model" in str(error.value)
    return str(error.value)


def test_the_base_of_another_family_is_refused_with_the_layer_it_lacks(tmp_path):
    write_random(tmp_path, "gpt2")
    assert "transformer.h.0.attn.c_attn" in refused(family("llama"), tmp_path)


def test_a_base_of_another_size_is_refused_with_both_shapes(tmp_path):
    write_random(tmp_path)
    config = tiny_llama().config
    config.intermediate_size = 40
    message = refused(type(tiny_llama())(config), tmp_path)
    assert "size mismatch" in message
    assert "40" in message


def test_a_layer_that_the_configuration_names_without_weights_is_refused(tmp_path):
    """PEFT would leave it at its random start and say so in a warning."""
    write_random(tmp_path)
    flat = load_file(tmp_path / WEIGHTS_NAME)
    save_file({key: t for key, t in flat.items() if "layers.1.mlp.up_proj" not in key}, tmp_path / WEIGHTS_NAME)
    assert "model.layers.1.mlp.up_proj" in refused(family("llama"), tmp_path)


def test_weights_that_the_configuration_does_not_name_are_refused(tmp_path):
    """PEFT would leave them out in silence."""
    write_random(tmp_path)
    config = json.loads((tmp_path / CONFIG_NAME).read_text())
    config["target_modules"].remove("model.layers.0.self_attn.q_proj")
    (tmp_path / CONFIG_NAME).write_text(json.dumps(config))
    assert "model.layers.0.self_attn.q_proj" in refused(family("llama"), tmp_path)
