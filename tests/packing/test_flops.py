from contextlib import nullcontext

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from rankwise.allocation import RankMap
from rankwise.data.batches import Row
from rankwise.data.examples import TokenizedExample
from rankwise.lora.pack import AdapterPack, SlotPlan
from rankwise.models.gradient_checkpointing import checkpointed_blocks
from rankwise.models.sites import find_sites
from rankwise.packing.flops import (
    TokenCounts,
    count_recomputed_flops,
    count_scoring_flops,
    count_training_flops,
)
from rankwise.packing.forward import token_losses
from rankwise.packing.memory import ModelShape

NUM_LAYERS, HIDDEN, WIDTH, VOCAB, RANK = 8, 32, 48, 64, 4
NUM_BLOCK_PARAMS = NUM_LAYERS * (4 * HIDDEN**2 + 3 * HIDDEN * WIDTH)


def flops_of_added_in_place(_y, left, right, **_) -> int:
    """Of `baddbmm_`, the one matrix product that torch's counter does not know."""
    return 2 * left[0] * left[1] * left[2] * right[2]


@pytest.fixture(scope="module")
def model():
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        intermediate_size=WIDTH,
        num_hidden_layers=NUM_LAYERS,
        num_attention_heads=4,
        num_key_value_heads=4,
        attn_implementation="eager",
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def rank_map(model):
    sites = find_sites(model)
    return RankMap(sites=sites, ranks=(RANK,) * len(sites), scales=(1.0,) * len(sites), budget_params=10**9)


def shape(model):
    return ModelShape.from_config(model.config, num_params=model.num_parameters(), param_bytes=4, compute_bytes=4)


def examples(num: int, num_shared: int) -> tuple[TokenizedExample, ...]:
    """Rows of 24 tokens, 10 of them answer, that share their first `num_shared`."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for index in range(num):
        ids = torch.randint(0, VOCAB, (24,), generator=generator)
        ids[:num_shared] = torch.arange(num_shared)
        found.append(TokenizedExample(ids.numpy(), 14, index, num_shared))
    return tuple(found)


def counted(model, rank_map, rows, *, training: bool, checkpointed: bool = False) -> int:
    """What torch counts in a pass of one slot over `rows`, rotary tables aside."""
    pack = AdapterPack(model, [SlotPlan(rank_map=rank_map, init="kaiming", seed=0)], compute_dtype=torch.float32)
    known = {torch.ops.aten.baddbmm_: flops_of_added_in_place}
    packed = [Row(0, example, place, example.num_shared_tokens) for place, example in enumerate(rows)]
    try:
        blocks = checkpointed_blocks(model) if checkpointed else nullcontext()
        with FlopCounterMode(display=False, custom_mapping=known) as counter, torch.set_grad_enabled(training), blocks:
            for _, losses in token_losses(model, pack, packed, max_tokens=10_000):
                if training:
                    losses.loss_M.sum().backward()
    finally:
        pack.detach()
    return counter.get_total_flops()


@pytest.mark.parametrize("num_shared", [0, 9])
def test_scoring_flops_are_those_that_torch_counts(model, rank_map, num_shared):
    rows = examples(3, num_shared)
    tokens = TokenCounts.of([rows], share_prefixes=True)
    predicted = count_scoring_flops(
        shape(model), tokens, num_block_params=NUM_BLOCK_PARAMS, num_adapter_params=rank_map.params
    )
    assert counted(model, rank_map, rows, training=False) == pytest.approx(predicted, rel=0.01)


@pytest.mark.parametrize("num_shared", [0, 9])
def test_training_flops_are_close_to_those_that_torch_counts(model, rank_map, num_shared):
    rows = examples(3, num_shared)
    tokens = TokenCounts.of([rows], share_prefixes=True)
    predicted = count_training_flops(
        shape(model), tokens, num_block_params=NUM_BLOCK_PARAMS, num_adapter_params=rank_map.params
    )
    # The first block's inputs need no gradient, which the count does not know: 1 of 8 blocks here.
    assert counted(model, rank_map, rows, training=True) == pytest.approx(predicted, rel=0.1)


@pytest.mark.parametrize("num_shared", [0, 9])
def test_gradient_checkpointing_adds_the_flops_that_torch_counts(model, rank_map, num_shared):
    rows = examples(3, num_shared)
    tokens = TokenCounts.of([rows], share_prefixes=True)
    predicted = count_recomputed_flops(
        shape(model), tokens, num_block_params=NUM_BLOCK_PARAMS, num_adapter_params=rank_map.params
    )
    again = counted(model, rank_map, rows, training=True, checkpointed=True)
    assert again - counted(model, rank_map, rows, training=True) == pytest.approx(predicted, rel=0.01)


def test_a_shared_prefix_counts_once_per_pass():
    rows = examples(4, 9)
    once = TokenCounts.of([rows], share_prefixes=True)
    twice = TokenCounts.of([rows[:2], rows[2:]], share_prefixes=True)
    never = TokenCounts.of([rows], share_prefixes=False)
    assert (once.num_tokens, twice.num_tokens, never.num_tokens) == (4 * 15 + 9, 4 * 15 + 2 * 9, 4 * 24)
    assert once.num_answer_tokens == twice.num_answer_tokens == never.num_answer_tokens == 40
    assert never.num_token_pairs == 4 * 24**2
