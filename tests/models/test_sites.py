"""Sites of real shapes and of tiny models of many families; PEFT's own search is the oracle for which layers count."""

import re

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BartConfig,
    BertConfig,
    BloomConfig,
    FalconConfig,
    GPT2Config,
    GPTJConfig,
    GPTNeoConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MambaConfig,
    MixtralConfig,
    MptConfig,
    OPTConfig,
    Phi3Config,
    PhiConfig,
    Qwen2Config,
    XLMConfig,
)

from rankwise.errors import ModelError
from rankwise.models.load import load_skeleton
from rankwise.models.sites import find_sites
from rankwise.study.config import BaseSettings

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 11}
WIDE = {**SMALL, "intermediate_size": 24}
GPT = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 11}

ATTENTION_OF = {"q_proj", "k_proj", "v_proj", "o_proj"}
GATED_MLP = {"gate_proj", "up_proj", "down_proj"}

FAMILIES = {
    "llama": (LlamaConfig(**WIDE, num_key_value_heads=1), ATTENTION_OF, GATED_MLP),
    "qwen2": (Qwen2Config(**WIDE, num_key_value_heads=1), ATTENTION_OF, GATED_MLP),
    "gpt2": (GPT2Config(**GPT), {"c_attn", "c_proj"}, {"c_fc", "c_proj"}),
    "gpt_neo": (
        GPTNeoConfig(hidden_size=16, num_layers=2, num_heads=2, attention_types=[[["global"], 2]], vocab_size=11),
        {"q_proj", "k_proj", "v_proj", "out_proj"},
        {"c_fc", "c_proj"},
    ),
    "gptj": (GPTJConfig(**GPT, rotary_dim=4), {"q_proj", "k_proj", "v_proj", "out_proj"}, {"fc_in", "fc_out"}),
    "neox": (GPTNeoXConfig(**WIDE), {"query_key_value", "dense"}, {"dense_h_to_4h", "dense_4h_to_h"}),
    "opt": (
        OPTConfig(**SMALL, ffn_dim=24, word_embed_proj_dim=8),
        {"q_proj", "k_proj", "v_proj", "out_proj"},
        {"fc1", "fc2"},
    ),
    "phi": (PhiConfig(**WIDE), {"q_proj", "k_proj", "v_proj", "dense"}, {"fc1", "fc2"}),
    "phi3": (
        Phi3Config(**WIDE, num_key_value_heads=1, pad_token_id=2),
        {"qkv_proj", "o_proj"},
        {"gate_up_proj", "down_proj"},
    ),
    "falcon": (FalconConfig(**SMALL), {"query_key_value", "dense"}, {"dense_h_to_4h", "dense_4h_to_h"}),
    "bloom": (
        BloomConfig(hidden_size=16, n_layer=2, n_head=2, vocab_size=11),
        {"query_key_value", "dense"},
        {"dense_h_to_4h", "dense_4h_to_h"},
    ),
    "mpt": (
        MptConfig(d_model=16, n_layers=2, n_heads=2, vocab_size=11),
        {"Wqkv", "out_proj"},
        {"up_proj", "down_proj"},
    ),
}
OUTSIDE_BLOCKS = re.compile(r"project_in|project_out")


def skeleton(config):
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def refusal(model, targets="all-linear"):
    with pytest.raises(ModelError) as caught:
        find_sites(model, targets)
    return str(caught.value)


@pytest.fixture(scope="module")
def llama():
    return skeleton(FAMILIES["llama"][0])


@pytest.fixture(scope="module")
def mixtral():
    return skeleton(MixtralConfig(**WIDE, num_key_value_heads=1, num_local_experts=2))


REAL = {
    "DialoGPT-medium": (
        24,
        [
            ("attn.c_attn", "attention", 1024, 3072),
            ("attn.c_proj", "attention", 1024, 1024),
            ("mlp.c_fc", "mlp", 1024, 4096),
            ("mlp.c_proj", "mlp", 4096, 1024),
        ],
        "transformer.h",
    ),
    "phi-2": (
        32,
        [
            ("self_attn.q_proj", "attention", 2560, 2560),
            ("self_attn.k_proj", "attention", 2560, 2560),
            ("self_attn.v_proj", "attention", 2560, 2560),
            ("self_attn.dense", "attention", 2560, 2560),
            ("mlp.fc1", "mlp", 2560, 10240),
            ("mlp.fc2", "mlp", 10240, 2560),
        ],
        "model.layers",
    ),
    "TinyLlama-1.1B-Chat-v1.0": (
        22,
        [
            ("self_attn.q_proj", "attention", 2048, 2048),
            ("self_attn.k_proj", "attention", 2048, 256),
            ("self_attn.v_proj", "attention", 2048, 256),
            ("self_attn.o_proj", "attention", 2048, 2048),
            ("mlp.gate_proj", "mlp", 2048, 5632),
            ("mlp.up_proj", "mlp", 2048, 5632),
            ("mlp.down_proj", "mlp", 5632, 2048),
        ],
        "model.layers",
    ),
}


@pytest.mark.parametrize("name", REAL)
def test_real_shapes_give_exactly_the_sites_of_their_papers(shared_data, name):
    num_layers, block, stack = REAL[name]
    model = load_skeleton(BaseSettings(model=str(shared_data / "models" / name)))
    expected = [
        (f"{stack}.{layer}.{path}", kind, layer, d, f) for layer in range(num_layers) for path, kind, d, f in block
    ]
    assert [(s.name, s.kind, s.layer, s.in_features, s.out_features) for s in find_sites(model)] == expected


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning", "ignore:fan_in_fan_out:UserWarning")
@pytest.mark.parametrize("family", FAMILIES)
def test_the_sites_are_those_that_peft_adapts(family):
    model = AutoModelForCausalLM.from_config(FAMILIES[family][0])
    sites = {site.name: site for site in find_sites(model)}
    adapted = get_peft_model(model, LoraConfig(r=1, target_modules="all-linear", task_type="CAUSAL_LM"))
    wrapped = {
        name.removeprefix("base_model.model."): module
        for name, module in adapted.named_modules()
        if hasattr(module, "lora_A") and not OUTSIDE_BLOCKS.search(name)
    }
    assert list(sites) == list(wrapped)
    for name, module in wrapped.items():
        assert (sites[name].in_features, sites[name].out_features) == (module.in_features, module.out_features)


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_and_mlp_are_told_apart_in_every_block(family):
    config, attention, mlp = FAMILIES[family]
    sites = find_sites(skeleton(config))
    for layer in (0, 1):
        in_layer = [site for site in sites if site.layer == layer]
        assert {site.leaf for site in in_layer if site.kind == "attention"} == attention
        assert {site.leaf for site in in_layer if site.kind == "mlp"} == mlp
        assert all(f".{layer}." in site.name for site in in_layer)
    assert {site.layer for site in sites} == {0, 1}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_keywords_partition_all_linear_layers(family):
    model = skeleton(FAMILIES[family][0])
    parts = {*find_sites(model, "attention"), *find_sites(model, "mlp")}
    assert parts == set(find_sites(model))
    assert find_sites(model, ["mlp", "attention"]) == find_sites(model)


def test_a_block_of_llama_is_in_forward_order(llama):
    leaves = [site.leaf for site in find_sites(llama)]
    assert leaves == ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"] * 2


@pytest.mark.parametrize(
    ("targets", "names"),
    [
        ("q_proj", ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"]),
        (["self_attn.q_proj"], ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"]),
        (["model.layers.1.mlp.up_proj"], ["model.layers.1.mlp.up_proj"]),
        ([r".*\.1\.self_attn\.[qv]_proj"], ["model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.v_proj"]),
        (["model.layers.1.mlp.up_proj", "q_proj", "1.self_attn.q_proj"],
         ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj", "model.layers.1.mlp.up_proj"]),
    ],
)  # fmt: skip
def test_targets_are_leaves_ends_full_names_or_expressions(llama, targets, names):
    assert [site.name for site in find_sites(llama, targets)] == names


def test_the_output_head_is_adapted_only_by_name(llama):
    *_, head = find_sites(llama, ["all-linear", "lm_head"])
    assert (head.name, head.kind, head.layer) == ("lm_head", "other", 1)
    assert "lm_head" not in {site.name for site in find_sites(llama)}


def test_projections_outside_the_blocks_are_adapted_only_by_name():
    model = skeleton(FAMILIES["opt"][0])
    assert [(site.leaf, site.kind, site.layer) for site in find_sites(model, [".*project_.*"])] == [
        ("project_out", "other", 0),
        ("project_in", "other", 0),
    ]


def test_packed_weights_of_quantized_layers_do_not_matter(llama):
    class Packed(nn.Linear):
        """Like bitsandbytes' Linear4bit: a subclass whose weight is a column of packed bytes."""

        def __init__(self, in_features, out_features):
            super().__init__(in_features, out_features)
            self.weight = nn.Parameter(torch.zeros(in_features * out_features // 2, 1, dtype=torch.uint8), False)

    model = skeleton(FAMILIES["llama"][0])
    for site in find_sites(model):
        model.set_submodule(site.name, Packed(site.in_features, site.out_features))
    assert find_sites(model) == find_sites(llama)


def test_a_misspelt_target_is_refused_with_the_nearest_names(llama):
    message = refusal(llama, ["q_proj", "qproj"])
    assert "'qproj' matches no linear layer" in message
    assert "did you mean q_proj" in message
    assert "all-linear" in message


@pytest.mark.parametrize("target", [r".*\.experts\..*", r"model\.layers\.9\..*", "layers.9.self_attn.q_proj"])
def test_one_target_of_several_that_matches_nothing_is_refused(llama, target):
    """Whatever the others match: what was meant would be left out without a word."""
    assert f"{target!r} matches no linear layer" in refusal(llama, ["mlp", target, "q_proj"])


@pytest.mark.parametrize(
    ("target", "class_name"), [("embed_tokens", "Embedding"), ("model.norm", "LlamaRMSNorm"), ("0.mlp", "LlamaMLP")]
)
def test_modules_that_are_not_linear_are_refused(llama, target, class_name):
    message = refusal(llama, ["q_proj", target])
    assert f"of class {class_name} and not a linear layer" in message


def test_impossible_targets_are_refused(llama):
    assert "the list is empty" in refusal(llama, [])
    assert "regular expression" in refusal(llama, "*_proj")
    assert "matches no linear layer" in refusal(llama, "")


def test_layers_that_are_neither_attention_nor_mlp_are_listed():
    model = skeleton(MambaConfig(hidden_size=16, num_hidden_layers=2, vocab_size=11))
    message = refusal(model)
    assert "backbone.layers.*.mixer.in_proj" in message
    assert "Name the modules in targets" in message
    assert {site.kind for site in find_sites(model, ["in_proj"])} == {"other"}


def test_cross_attention_that_a_decoder_never_runs_is_not_adapted_silently():
    model = skeleton(
        BartConfig(d_model=16, decoder_layers=2, decoder_attention_heads=2, decoder_ffn_dim=24, vocab_size=11)
    )
    assert "encoder_attn.k_proj" in refusal(model)
    assert all("encoder_attn" not in site.name for site in find_sites(model, [r".*self_attn\..*", "fc1"]))


def test_an_ambiguous_dense_layer_is_listed():
    model = skeleton(BertConfig(**WIDE, is_decoder=True))
    assert "bert.encoder.layer.*.output.dense" in refusal(model)


def test_experts_in_fused_arrays_are_not_left_out_silently(mixtral):
    for targets in ("all-linear", "mlp"):
        assert "mlp.experts.gate_up_proj" in refusal(mixtral, targets)
    assert {site.leaf for site in find_sites(mixtral, "attention")} == ATTENTION_OF


def test_a_keyword_needs_one_stack_of_blocks():
    two_stacks = skeleton(XLMConfig(emb_dim=16, n_layers=2, n_heads=2, n_words=11))
    assert "2 lists of blocks (transformer.attentions, transformer.ffns)" in refusal(two_stacks)
    assert len(find_sites(two_stacks, ["q_lin"])) == 2
    plain = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    assert "no list of repeated blocks" in refusal(plain)
    assert [site.name for site in find_sites(plain, ["0", "1"])] == ["0", "1"]


def test_sites_of_a_text_decoder_leave_its_vision_tower_alone():
    class WithTower(nn.Module):
        def __init__(self, decoder):
            super().__init__()
            self.patches = nn.Conv2d(3, 2, 4)
            self.vision_layers = nn.ModuleList([nn.ModuleDict({"mlp": nn.ModuleDict({"fc1": nn.Linear(2, 2)})})])
            self.decoder = decoder

        def get_decoder(self):
            return self.decoder

    model = WithTower(skeleton(FAMILIES["llama"][0]))
    assert {site.name.split(".")[0] for site in find_sites(model)} == {"decoder"}
