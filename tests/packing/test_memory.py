from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, LlamaConfig, OPTConfig

from rankwise.allocation import RankMap, Site
from rankwise.lora.init import InitialAdapter
from rankwise.lora.pack import AdapterPack, SlotPlan
from rankwise.models.sites import find_sites
from rankwise.packing.activations import ActivationSize
from rankwise.packing.growth import Growth
from rankwise.packing.memory import SLACK_FRAC, MemoryEstimate, ModelShape, padded_params, predict_memory
from rankwise.packing.passes import AnswerSize, PassSize
from rankwise.packing.working import WorkingSize
from tests.tiny import tiny_llama

SITES = tuple(
    Site(name=f"layers.{layer}.q", kind="attention", layer=layer, in_features=8 + layer, out_features=4)
    for layer in range(3)
)
SHAPE = ModelShape(
    num_params=1000,
    param_bytes=4,
    compute_bytes=4,
    hidden_size=8,
    mlp_size=16,
    num_layers=3,
    num_heads=2,
    kv_size=4,
    vocab_size=50,
)
PASS = PassSize(num_rows=8, own_tokens=8, num_answers=32, prefix_tokens=8, num_prefixes=2)
"""Rows of 16 tokens, of which they share the first half."""
KEPT = ActivationSize(per_token=500.0, per_pair=10.0)

WORKING = WorkingSize(
    training=(Growth(per_token=200.0, per_pair=0.0), Growth(per_token=0.0, per_pair=10.0)),
    scoring=(Growth(per_token=300.0, per_pair=4.0),),
)

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=50)
"""A busy machine is no failure."""

ranks = st.tuples(*[st.integers(0, 6)] * len(SITES))


def rank_map(of_sites: tuple[int, ...], sites=SITES) -> RankMap:
    return RankMap(sites=sites, ranks=of_sites, scales=(1.0,) * len(sites), budget_params=10**6)


def estimate(rank_maps, shape=SHAPE, **changes) -> MemoryEstimate:
    return predict_memory(shape, rank_maps, KEPT, WORKING, **{"training": [PASS], "scoring": [PASS]} | changes)


@unhurried
@given(st.lists(ranks, min_size=1, max_size=5))
def test_each_site_is_as_wide_as_the_widest_slot_there(all_ranks):
    widest = [max(column) for column in zip(*all_ranks, strict=True)]
    expected = sum(rank * site.cost for rank, site in zip(widest, SITES, strict=True))
    assert padded_params([rank_map(of_sites) for of_sites in all_ranks]) == expected


def test_padded_parameters_are_those_that_a_pack_allocates():
    model = tiny_llama().requires_grad_(False)
    sites = find_sites(model)
    maps = [rank_map(tuple(1 + (place + slot) % 3 for place in range(len(sites))), sites) for slot in range(3)]
    pack = AdapterPack(model, [SlotPlan(rank_map=m, init="kaiming", seed=0) for m in maps], compute_dtype=torch.float32)
    assert pack.weights_KP.shape == (3, padded_params(maps))
    assert estimate(maps).adapters == pack.weights_KP.nbytes
    assert estimate(maps).gradients == pack.grads_KP.nbytes
    pack.detach()


@unhurried
@given(st.lists(ranks, min_size=1, max_size=4), ranks)
def test_another_slot_never_needs_less(all_ranks, another):
    maps = [rank_map(of_sites) for of_sites in all_ranks]
    assert estimate([*maps, rank_map(another)]).total_bytes >= estimate(maps).total_bytes


def test_the_total_is_the_sum_of_the_named_terms():
    one = replace(PASS, num_rows=1, num_prefixes=1, num_answers=2)
    most = AnswerSize(num_rows=11, prompt_tokens=8, new_tokens=4)
    found = estimate([rank_map((2000,) * 3)], training=[one], scoring=[replace(PASS, num_rows=10)], answers=[most])
    assert found.total_bytes == sum(found.terms().values())
    assert set(found.terms()) == {
        "runtime",
        "weights",
        "adapters",
        "gradients",
        "optimizer",
        "activations",
        "prefixes",
        "logits",
        "working",
        "slack",
        "scoring",
        "answers",
        "checkpoint",
    }
    assert all(size > 0 for size in found.terms().values())


def test_weights_are_counted_at_their_stored_size():
    for param_bytes in (4, 2, 1.0, 0.5):
        assert estimate([rank_map((1, 1, 1))], replace(SHAPE, param_bytes=param_bytes)).weights == 1000 * param_bytes


def test_half_precision_keeps_a_working_copy_of_the_adapters():
    maps = [rank_map((2, 2, 2))]
    full, half = estimate(maps), estimate(maps, replace(SHAPE, compute_bytes=2))
    assert half.adapters == full.adapters * 3 / 2
    assert half.gradients == full.gradients
    assert half.prefixes < full.prefixes


def test_only_the_host_counts_the_process_itself():
    maps = [rank_map((1, 1, 1))]
    host, device = estimate(maps), estimate(maps, on_host=False)
    assert host.runtime > device.runtime == 0
    assert host.slack > device.slack == 0
    assert host.total_bytes - host.runtime - host.slack - host.checkpoint == device.total_bytes


def test_the_most_demanding_pass_counts():
    maps = [rank_map((1, 1, 1))]
    larger = replace(PASS, num_rows=16)
    assert estimate(maps, training=[PASS, larger, PASS]) == estimate(maps, training=[larger])
    assert estimate(maps, training=[larger]).activations == 2 * estimate(maps).activations


def test_what_a_row_keeps_is_what_the_model_said():
    plain = PassSize(num_rows=4, own_tokens=16, num_answers=1)
    assert estimate([rank_map((0, 0, 0))], training=[plain]).activations == 64 * (500 + 10 * 16)


def test_logits_are_gone_when_the_blocks_are_differentiated():
    """So the working space of a block is counted only where it exceeds them."""
    maps = [rank_map((1, 1, 1))]
    few, many = (estimate(maps, training=[replace(PASS, num_answers=num)]) for num in (1, 64))
    assert few.working > 0
    assert few.logits + few.working == estimate(maps, training=[replace(PASS, num_answers=0)]).working
    assert many.logits == 64 * few.logits
    assert many.working == 0


def test_a_checkpointed_block_is_counted_only_while_it_is_differentiated():
    """Not beside the logits; of rows or of their prefixes, which are differentiated after them; with its `low`."""
    size = ActivationSize(per_token=20.0, per_pair=1.0, block_per_token=100.0, block_per_pair=2.0)
    maps = [rank_map((3, 3, 3))]
    rows = PassSize(num_rows=4, own_tokens=16, num_answers=0)
    found = predict_memory(SHAPE, maps, size, WORKING, training=[rows], on_host=False)
    assert found.activations == 64 * (20 + 16)
    block, low, row_adapters = 64 * (100 + 2 * 16), 64 * 3 * 4, 2 * 4 * 3 * 10 * 4
    assert found.working == block + 64 * 200 + low + row_adapters
    many = predict_memory(SHAPE, maps, size, WORKING, training=[replace(rows, num_answers=64)], on_host=False)
    assert (many.logits, many.working) == (64 * 50 * 4 * 3, 0)
    shared = replace(rows, num_rows=1, own_tokens=8, prefix_tokens=8, num_prefixes=6)
    found = predict_memory(SHAPE, maps, size, WORKING, training=[shared], on_host=False)
    again, under_way = 48 * (100 + 2 * 8 + 3 * 4), 8 * 200
    assert found.working == again + under_way + row_adapters // 4
    own, of_rows = 48 * (20 + 8 + 2 * 4 * 3 * 4), 8 * 2 * 4 * 4
    assert found.prefixes == own + of_rows


def test_without_training_only_scoring_counts():
    found = estimate([rank_map((0, 0, 0))], training=[], scoring=[PASS], writes_checkpoint=False)
    assert found.scoring > 0
    assert found.total_bytes == found.runtime + found.weights + found.scoring + found.slack


def test_answers_hold_all_keys_and_values_and_those_of_one_block_twice():
    batch = AnswerSize(num_rows=5, prompt_tokens=20, new_tokens=10)
    maps = [rank_map((0, 0, 0))]
    found = estimate(maps, training=[], scoring=[], answers=[batch], writes_checkpoint=False)
    read = estimate(maps, training=[], scoring=[batch.prefill()], writes_checkpoint=False)
    a_block = 2 * SHAPE.kv_size * SHAPE.compute_bytes
    assert found.answers == read.scoring + 5 * 30 * a_block * (SHAPE.num_layers + 1)
    assert found.slack == int(found.answers * SLACK_FRAC)
    assert estimate(maps, training=[], scoring=[replace(PASS, num_rows=900)], answers=[batch]).answers == 0


def test_a_quantized_matrix_is_unpacked_while_its_layer_is_differentiated():
    maps, shape = [rank_map((1, 1, 1))], replace(SHAPE, unpacked_params=10**6)
    grown = estimate(maps, shape, training=[replace(PASS, num_answers=0)])
    assert grown.working == estimate(maps, training=[replace(PASS, num_answers=0)]).working + 4 * 10**6


def test_a_checkpoint_copies_weights_and_both_averages_twice_into_what_passes_have_freed():
    maps = [rank_map((6, 6, 6))] * 3
    found = estimate(maps, training=[], scoring=[])
    assert found.checkpoint == 2 * (found.adapters + found.optimizer)
    few = PassSize(num_rows=1, own_tokens=2, num_answers=1)
    small = estimate(maps, training=[few], scoring=[])
    live = small.activations + small.prefixes + small.logits + small.working
    assert 0 < small.checkpoint == found.checkpoint - live
    assert estimate(maps, training=[replace(PASS, num_rows=100)]).checkpoint == 0
    assert estimate(maps, training=[], scoring=[], on_host=False).checkpoint == 0
    assert estimate(maps, training=[], scoring=[], writes_checkpoint=False).checkpoint == 0


def test_keys_that_query_heads_share_are_narrower():
    config = LlamaConfig(hidden_size=32, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=1)
    assert ModelShape.from_config(config, num_params=10, param_bytes=4, compute_bytes=4).kv_size == 8


@pytest.mark.parametrize(
    ("config", "mlp_size"),
    [
        (LlamaConfig(hidden_size=32, intermediate_size=88, num_hidden_layers=3, num_attention_heads=4), 88),
        (GPT2Config(n_embd=32, n_layer=3, n_head=4), 128),
        (GPT2Config(n_embd=32, n_layer=3, n_head=4, n_inner=48), 48),
        (OPTConfig(hidden_size=32, ffn_dim=96, num_hidden_layers=3, num_attention_heads=4), 96),
    ],
)
def test_the_shape_is_read_under_the_names_of_each_family(config, mlp_size):
    shape = ModelShape.from_config(config, num_params=10, param_bytes=4, compute_bytes=4)
    assert (shape.hidden_size, shape.num_layers, shape.num_heads) == (32, 3, 4)
    assert shape.mlp_size == mlp_size
    assert shape.kv_size == 32
    assert shape.vocab_size == config.vocab_size


def test_subtracted_components_are_kept_beside_the_trained_ones():
    """One slot that subtracts its initial product makes the tensors of every slot wider."""
    model = tiny_llama().requires_grad_(False)
    sites = find_sites(model)
    narrow, wide = rank_map((1,) * len(sites), sites), rank_map((2,) * len(sites), sites)
    tensors = {site.name: (np.ones((1, site.in_features)), np.ones((site.out_features, 1))) for site in sites}
    start = InitialAdapter(tensors=tensors, subtracted=True)
    plans = [
        SlotPlan(rank_map=wide, init="kaiming", seed=0),
        SlotPlan(rank_map=narrow, init="pissa", seed=0, initial=start),
    ]
    pack = AdapterPack(model, plans, compute_dtype=torch.float32)
    site = model.get_submodule(sites[0].name).site
    computed = [t.untyped_storage().nbytes() for t in (site.down_KRD, site.grad_down_KRD)]
    found = estimate([wide, narrow], subtracted=[narrow])
    assert found.adapters == pack.weights_KP.nbytes + pack.frozen_KP.nbytes + computed[0]
    assert found.gradients == pack.grads_KP.nbytes + computed[1]
    assert found.activations > estimate([wide, narrow]).activations
    pack.detach()
