"""Verdicts against a stand-in of each runtime: the logits that its own rule of ranks and scales would give."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.numpy import load_file, save_file
from transformers import PreTrainedModel

from rankwise.lora.export import bake, write_adapter
from rankwise.lora.peft_folder import CONFIG_NAME, WEIGHTS_NAME
from rankwise.lora.runtimes import SOURCES, UNSEEN, VLLM_MAX_RANKS, BaseFacts, Verdict, judge
from rankwise.lora.saved_adapter import read_adapter
from tests.families import FAMILIES, family
from tests.lora.foreign import CONFIGS, write_foreign
from tests.lora.test_peft_folder import IDS, SCALINGS, write_random
from tests.lora.test_saved_adapter import edit
from tests.tiny import tiny_llama

EVERYTHING = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

# What each runtime multiplies a layer's product with: from the configuration and the rank of the layer's own tensors.
RULES: dict[str, Callable[[Mapping[str, Any], int], float]] = {
    "vLLM": lambda c, rank: c["lora_alpha"] / (math.sqrt(c["r"]) if c["use_rslora"] else c["r"]),
    "llama.cpp": lambda c, rank: c["lora_alpha"] / rank,
    "SGLang": lambda c, rank: c["lora_alpha"] / c["r"],
}


def verdicts(folder: Path, model: PreTrainedModel | None = None) -> dict[str, Verdict]:
    base = BaseFacts.of(model or tiny_llama())
    return {verdict.runtime: verdict for verdict in judge(folder, read_adapter(folder).scales, base)}


def served_logits(folder: Path, rule: Callable[[Mapping[str, Any], int], float]) -> torch.Tensor:
    """Straight from the two files, without PEFT: the tensors by their names, the scale by the runtime's rule."""
    config = json.loads((folder / CONFIG_NAME).read_text())
    flat = load_file(folder / WEIGHTS_NAME)
    model = tiny_llama().eval()
    for key, down in flat.items():
        if key.endswith(".lora_A.weight"):
            up = flat[key.replace("lora_A", "lora_B")]
            name = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            with torch.no_grad():
                model.get_submodule(name).weight.add_(torch.from_numpy(rule(config, len(down)) * (up @ down)))
    with torch.no_grad():
        return model(input_ids=IDS).logits


def peft_logits(folder: Path) -> torch.Tensor:
    with torch.no_grad():
        return PeftModel.from_pretrained(tiny_llama().eval(), folder)(input_ids=IDS).logits


def write_baked(folder: Path, source: Path, rank: int) -> Path:
    folder.mkdir()
    write_adapter(folder, bake(read_adapter(source).layers, rank), tiny_llama(), base_name="tiny")
    return folder


@pytest.mark.parametrize("name", CONFIGS)
def test_the_verdict_says_whether_a_runtimes_rule_gives_the_logits_of_peft(name, tmp_path):
    write_foreign(tmp_path, tiny_llama(), **{"target_modules": EVERYTHING, **CONFIGS[name]})
    expected, found = peft_logits(tmp_path), verdicts(tmp_path)
    for runtime, rule in RULES.items():
        if found[runtime].outcome != "refused":
            same = torch.allclose(served_logits(tmp_path, rule), expected, atol=1e-5)
            assert (found[runtime].outcome == "exact") == same, runtime
            assert bool(found[runtime].reasons) != same
    assert found["PEFT"].outcome == "exact"


OUTCOMES = {
    "plain": ("exact", "exact", "exact"),
    "rslora": ("exact", "wrong scale", "wrong scale"),
    "patterns": ("wrong scale", "wrong scale", "refused"),
    "regular expression": ("wrong scale", "exact", "refused"),
    "some layers": ("exact", "exact", "exact"),
    "gaussian": ("exact", "exact", "exact"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_outcomes_are_those_of_the_documentation(name, tmp_path):
    write_foreign(tmp_path, tiny_llama(), **{"target_modules": EVERYTHING, **CONFIGS[name]})
    found = verdicts(tmp_path)
    assert tuple(found[runtime].outcome for runtime in ("vLLM", "llama.cpp", "SGLang")) == OUTCOMES[name]


@pytest.mark.parametrize("rule", SCALINGS)
def test_a_baked_adapter_is_exact_under_every_rule(rule, tmp_path):
    write_random(tmp_path / "adapter", scaling=SCALINGS[rule])
    baked = write_baked(tmp_path / "baked", tmp_path / "adapter", 8)
    model = family("llama")
    found = verdicts(baked, model)
    assert {verdict.outcome for verdict in found.values()} == {"exact"}
    assert {(v.smallest_factor, v.largest_factor) for v in found.values()} == {(1.0, 1.0)}


def test_a_baked_foreign_adapter_gives_every_runtime_the_logits_of_peft(tmp_path):
    write_foreign(tmp_path / "adapter", tiny_llama(), **CONFIGS["patterns"])
    expected = peft_logits(tmp_path / "adapter")
    baked = write_baked(tmp_path / "baked", tmp_path / "adapter", 5)
    for rule in RULES.values():
        torch.testing.assert_close(served_logits(baked, rule), expected, atol=1e-5, rtol=1e-5)


def test_the_factor_is_how_far_off_the_scale_would_be(tmp_path):
    config = {"r": 4, "lora_alpha": 8, "rank_pattern": {"up_proj": 2}, "target_modules": ["q_proj", "up_proj"]}
    write_foreign(tmp_path, tiny_llama(), **config)
    vllm = verdicts(tmp_path)["vLLM"]
    assert (vllm.smallest_factor, vllm.largest_factor, vllm.num_wrong) == (0.5, 1.0, 2)
    assert "rank_pattern" in vllm.reasons[0]
    edit(tmp_path, rank_pattern={"up_proj": 2, "q_proj": 4}, use_rslora=True)
    llama_cpp = verdicts(tmp_path)["llama.cpp"]
    assert llama_cpp.smallest_factor == pytest.approx(1 / 2)
    assert llama_cpp.largest_factor == pytest.approx(1 / math.sqrt(2))
    assert "use_rslora" in llama_cpp.reasons[0]


@pytest.mark.parametrize(("rank", "limit"), [(1, None), (16, None), (17, 32), (48, 64), (200, 256)])
def test_vllm_is_given_the_smallest_limit_that_it_accepts(rank, limit, tmp_path):
    write_foreign(tmp_path, tiny_llama(), r=rank)
    assert verdicts(tmp_path)["vLLM"].notes == (() if limit is None else (f"needs --max-lora-rank {limit}",))


def test_a_rank_above_all_that_vllm_accepts_is_refused(tmp_path):
    write_foreign(tmp_path, tiny_llama(), r=VLLM_MAX_RANKS[-1] + 1)
    assert verdicts(tmp_path)["vLLM"].outcome == "refused"


def test_conv1d_is_refused_where_the_matrices_would_be_swapped(tmp_path):
    write_random(tmp_path, "gpt2")
    found = verdicts(tmp_path, family("gpt2"))
    assert found["PEFT"].outcome == "exact"
    assert found["vLLM"].outcome == found["llama.cpp"].outcome == found["SGLang"].outcome == "refused"
    assert "Conv1D" in found["llama.cpp"].reasons[0]


@pytest.mark.parametrize("is_tied", [True, False])
def test_an_adapted_output_head(is_tied, tmp_path):
    write_foreign(tmp_path, tiny_llama(), target_modules=["lm_head", "q_proj"], r=2)
    facts = BaseFacts.of(tiny_llama())
    assert facts.head == "lm_head"
    assert not facts.is_head_tied
    found = {v.runtime: v for v in judge(tmp_path, read_adapter(tmp_path).scales, replace(facts, is_head_tied=is_tied))}
    assert found["llama.cpp"].outcome == ("refused" if is_tied else "exact")
    assert any("output head" in note for note in found["vLLM"].notes)


@pytest.mark.parametrize(
    ("targets", "missing"), [(["k_proj"], "q_proj"), (["q_proj"], "v_proj"), (["up_proj"], "gate_proj")]
)
def test_sglang_needs_the_layers_that_it_fuses(targets, missing, tmp_path):
    write_foreign(tmp_path, tiny_llama(), target_modules=targets, r=2)
    sglang = verdicts(tmp_path)["SGLang"]
    assert sglang.outcome == "refused"
    assert missing in sglang.reasons[0]


@pytest.mark.parametrize("field", ["r", "lora_alpha", "target_modules"])
def test_a_field_that_a_loader_takes_for_granted_is_refused(field, tmp_path):
    write_foreign(tmp_path, tiny_llama(), r=2, lora_alpha=2)
    scales = read_adapter(tmp_path).scales
    edit(tmp_path, **{field: None})
    found = {v.runtime: v for v in judge(tmp_path, scales, None)[1:]}
    assert field in found["vLLM"].reasons[0]
    assert (found["llama.cpp"].outcome == "refused") == (field == "lora_alpha")


def test_configured_features_that_the_loaders_refuse(tmp_path):
    write_foreign(tmp_path, tiny_llama(), target_modules=EVERYTHING, r=2)
    scales = read_adapter(tmp_path).scales
    for changes in ({"use_dora": True}, {"bias": "all"}, {"modules_to_save": ["lm_head"]}, {"lora_bias": True}):
        edit(tmp_path, **{"use_dora": False, "bias": "none", "modules_to_save": None, **changes})
        found = {v.runtime: v.outcome for v in judge(tmp_path, scales, None)}
        assert found["vLLM"] == found["SGLang"] == "refused", changes
        edit(tmp_path, lora_bias=False)
    edit(tmp_path, bias="none", modules_to_save=None, init_lora_weights="pissa")
    assert judge(tmp_path, scales, None)[1].outcome == "refused"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("base_model.model.lm_head.weight", np.zeros((2, 2), np.float32)),
        ("model.layers.0.self_attn.q_proj.lora_A.weight", np.zeros((2, 16), np.float32)),
        ("base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight", np.zeros((2, 16), np.float32)),
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", np.zeros((3, 16), np.float32)),
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", np.zeros((1, 2, 16), np.float32)),
    ],
)
def test_tensors_are_checked_on_the_file_by_name_and_shape(key, value, tmp_path):
    write_foreign(tmp_path, tiny_llama(), r=2)
    scales = read_adapter(tmp_path).scales
    save_file(load_file(tmp_path / WEIGHTS_NAME) | {key: value}, tmp_path / WEIGHTS_NAME)
    for verdict in judge(tmp_path, scales, BaseFacts.of(tiny_llama()))[1:]:
        assert verdict.outcome == "refused"
        assert key.rpartition(".lora_")[0] in verdict.reasons[0] or key in verdict.reasons[0]


def test_number_formats_that_no_loader_reads(tmp_path):
    write_foreign(tmp_path, tiny_llama(), r=2)
    scales = read_adapter(tmp_path).scales
    flat = {key: value.astype(np.float64) for key, value in load_file(tmp_path / WEIGHTS_NAME).items()}
    save_file(flat, tmp_path / WEIGHTS_NAME)
    found = {v.runtime: v for v in judge(tmp_path, scales, None)}
    assert "F64" in found["vLLM"].reasons[0]
    assert "F64" in found["llama.cpp"].reasons[0]


def test_without_the_base_every_verdict_says_what_was_not_looked_at(tmp_path):
    write_foreign(tmp_path, tiny_llama(), r=2)
    for verdict in judge(tmp_path, read_adapter(tmp_path).scales, None):
        assert UNSEEN in verdict.notes


def test_a_base_that_only_rankwise_knows_is_noted(tmp_path):
    write_foreign(tmp_path, tiny_llama(), r=2)
    edit(tmp_path, base_model_name_or_path="nano")
    found = verdicts(tmp_path)
    assert "nano" in found["PEFT"].notes[0]
    assert "--base" in found["llama.cpp"].notes[0]
    edit(tmp_path, base_model_name_or_path="org/model")
    found = verdicts(tmp_path)
    assert found["PEFT"].notes == found["llama.cpp"].notes == ()


@pytest.mark.parametrize("name", FAMILIES)
def test_the_facts_of_every_family(name):
    facts = BaseFacts.of(family(name))
    assert facts.head in ("lm_head", "embed_out")
    assert bool(facts.conv1d) == (name == "gpt2")
    assert facts.is_head_tied == (name in ("gpt2", "opt", "phi3"))


def test_every_verdict_has_its_sources(tmp_path):
    write_foreign(tmp_path, tiny_llama(), r=2)
    assert [verdict.runtime for verdict in judge(tmp_path, read_adapter(tmp_path).scales, None)] == list(SOURCES)
