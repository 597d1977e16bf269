"""Rank maps as tables and as PEFT configurations, checked on real PEFT models."""

import subprocess
import sys

import numpy as np
import pytest
from torch import nn

from rankwise.allocation import (
    RankMap,
    Scaling,
    Site,
    SiteView,
    allocate,
    build_strategy,
    check_patterns,
    resolve_budget,
)
from rankwise.errors import AllocationError, AuditError


def tiny_llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=32,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=12,  # a name such as layers.1 begins the name layers.10
            num_attention_heads=4,
            num_key_value_heads=2,
        )
    )


def tiny_gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=16, n_layer=2, n_head=2, n_positions=16))


def sites_of(model: nn.Module) -> list[Site]:
    """All linear layers of the blocks, read from the weights' shapes (GPT-2 stores them transposed)."""
    found = []
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if weight is None or weight.ndim != 2 or not any(part.isdigit() for part in name.split(".")):
            continue
        wide, high = weight.shape if type(module).__name__ == "Conv1D" else weight.shape[::-1]
        layer = next(int(part) for part in name.split(".") if part.isdigit())
        kind = "attention" if "attn" in name else "mlp"
        found.append(Site(name=name, kind=kind, layer=layer, in_features=wide, out_features=high))
    return found


def uneven_map(sites: list[Site], scaling: Scaling, **bounds: int) -> RankMap:
    """Random ranks, so that neighbours differ."""
    strategy = build_strategy("random", {"contrast": 8.0})
    view = SiteView(sites=sites)
    return allocate(strategy, view, budget_params=resolve_budget(sites, rank=4), scaling=scaling, **bounds)


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning")  # PEFT corrects it for Conv1D itself
@pytest.mark.parametrize("make_model", [tiny_llama, tiny_gpt2])
@pytest.mark.parametrize("scaling", [Scaling(), Scaling(rule="rslora", alpha=5), Scaling(rule="constant", scale=0.3)])
def test_peft_gives_every_site_its_rank_and_scale_and_nothing_to_others(make_model, scaling):
    from peft import get_peft_model

    model = make_model()
    rank_map = uneven_map(sites_of(model), scaling)
    assert len(set(rank_map.ranks)) > 2
    config = rank_map.to_peft()
    check_patterns(rank_map.to_peft_dict(), [name for name, _ in model.named_modules()])
    adapted = get_peft_model(model, config).base_model.model
    realised = {
        name: (module.r["default"], module.scaling["default"])
        for name, module in adapted.named_modules()
        if hasattr(module, "lora_A")
    }
    planned = zip(rank_map.sites, rank_map.ranks, rank_map.scales, strict=True)
    assert realised == {site.name: (rank, pytest.approx(scale)) for site, rank, scale in planned}
    stored = sum(weight.numel() for name, weight in adapted.named_parameters() if "lora_" in name)
    assert stored == rank_map.params


def test_sites_without_components_are_not_adapted():
    from peft import get_peft_model

    model = tiny_llama()
    sites = sites_of(model)
    ranks = [2 if site.leaf == "o_proj" and site.layer != 1 else 0 for site in sites]
    rank_map = RankMap(
        sites=tuple(sites), ranks=tuple(ranks), scales=tuple(1.0 if r else 0.0 for r in ranks), budget_params=10**6
    )
    check_patterns(rank_map.to_peft_dict(), [name for name, _ in model.named_modules()])
    adapted = get_peft_model(model, rank_map.to_peft()).base_model.model
    names = {name for name, module in adapted.named_modules() if hasattr(module, "lora_A")}
    assert names == {f"model.layers.{layer}.self_attn.o_proj" for layer in range(12) if layer != 1}


def test_a_map_of_zeros_is_no_configuration():
    site = Site(name="a.q", kind="attention", layer=0, in_features=4, out_features=4)
    with pytest.raises(AllocationError, match="without any component"):
        RankMap(sites=(site,), ranks=(0,), scales=(0.0,), budget_params=8).to_peft_dict()


NAMES = [
    "",
    "model",
    "model.layers.0.q_proj",
    "model.layers.1.q_proj",
    "draft.layers.1.q_proj",
    "model.layers.0.k_proj",
]


def config(targets=(), ranks=(), alphas=()) -> dict:
    return {
        "target_modules": list(targets),
        "rank_pattern": dict.fromkeys(ranks, 4),
        "alpha_pattern": dict.fromkeys(alphas, 8),
    }


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (config(ranks=[r"^layers\.0\.q_proj"]), ["rank_pattern", "no modules"]),
        (config(ranks=[r"^base_model\.model\.model\.layers\.0\.q_proj"]), ["rank_pattern", "no modules"]),
        (config(ranks=["layers.0"]), ["rank_pattern", "'layers.0'", "no modules"]),
        (config(ranks=["q_proj"]), ["'q_proj'", "3 modules"]),
        (config(ranks=[r"layers\.1\.q_proj"]), ["2 modules"]),
        (config(alphas=[r"layers\.1\.q_proj"]), ["alpha_pattern", "2 modules"]),
        (config(ranks=["k_proj", r"^model\.layers\.0\.k_proj"]), ["never used", "model.layers.0.k_proj"]),
        (config(targets=["layers.1.q_proj"]), ["target_modules", "2 modules"]),
        (config(targets=["v_proj"]), ["target_modules", "'v_proj'", "no modules"]),
    ],
)
def test_a_pattern_that_peft_would_misread_is_an_audit_error(broken, words):
    with pytest.raises(AuditError) as error:
        check_patterns(broken, NAMES)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_patterns_that_say_one_thing_each_pass():
    keys = [r"^model\.layers\.1\.q_proj", "k_proj", r"draft\.layers\.1\.q_proj"]
    check_patterns(config(targets=["model.layers.1.q_proj", "layers.0.k_proj"], ranks=keys, alphas=keys), NAMES)


def test_the_check_agrees_with_peft_about_the_pattern_that_is_taken():
    from peft.utils.other import get_pattern_key

    keys = ["k_proj", r"^model\.layers\.0\.k_proj"]
    assert get_pattern_key(keys, "model.layers.0.k_proj") == "k_proj"


def grid_of(*names: str):
    sites = tuple(
        Site(name=name, kind="attention", layer=int(name.split(".")[1]), in_features=8, out_features=8)
        for name in names
    )
    ranks = tuple(range(1, len(names) + 1))
    return RankMap(sites=sites, ranks=ranks, scales=ranks, budget_params=10**6).grid()


def test_the_grid_has_a_row_per_leaf_a_column_per_layer_and_holes_where_there_is_no_site():
    labels, layers, ranks = grid_of("h.0.q", "h.0.k", "h.2.q", "h.10.k")
    assert labels == ["q", "k"]
    assert layers == [0, 2, 10]
    np.testing.assert_array_equal(ranks, [[1, 3, np.nan], [2, np.nan, 4]])


def test_rows_of_the_same_leaf_are_told_apart_by_as_much_of_the_path_as_that_takes():
    labels, _, ranks = grid_of("h.0.attn.c_attn", "h.0.attn.c_proj", "h.0.mlp.c_proj", "h.1.mlp.c_proj")
    assert labels == ["c_attn", "attn.c_proj", "mlp.c_proj"]
    np.testing.assert_array_equal(ranks, [[1, np.nan], [2, np.nan], [3, 4]])
    assert grid_of("h.0.a.x.w", "h.0.b.x.w", "h.0.b.v")[0] == ["a.x.w", "b.x.w", "v"]


def test_configurations_are_written_without_torch():
    code = "import sys, rankwise.allocation, rankwise.testing; print(sorted({'torch', 'peft', 'scipy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
