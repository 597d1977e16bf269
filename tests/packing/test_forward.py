"""Prefixes computed once against whole rows: the same losses and the same adapter gradients, to float32 rounding."""

import itertools

import numpy as np
import pytest
import torch

from rankwise.allocation.rank_map import Scaling
from rankwise.data.batches import Row
from rankwise.data.examples import TokenizedExample
from rankwise.data.prefixes import shared_prefix_tokens
from rankwise.packing.forward import token_losses
from tests.families import FAMILIES, family, mixed_rank_map, random_pack
from tests.tiny import VOCAB

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}
"""Relative, of a slot's whole gradient, which is summed in float32. Measured: 9e-8 with a model in float64, and in
float32 2e-5 (OPT, whose gradients are large) or below 2e-6 (all others)."""

TEMPLATES = (np.arange(5, 14), np.arange(40, 53))


def two_template_rows(num: int = 10) -> list[Row]:
    """Rows of three slots: two templates of 9 and 13 tokens, and two rows that share nothing."""
    rng = np.random.default_rng(0)
    examples = []
    for index in range(num):
        own = rng.integers(3, VOCAB, int(rng.integers(4, 12)))
        ids = own if index >= num - 2 else np.concatenate([TEMPLATES[index % 2], own])
        num_prompt = len(ids) - int(rng.integers(1, len(own) - 1))
        examples.append(TokenizedExample(ids.astype(np.int64), num_prompt, index))
    shared = shared_prefix_tokens(examples)
    assert set(shared) == {0, 9, 13}
    return [Row(index % 3, example, index, shared[index]) for index, example in enumerate(examples)]


def whole(rows: list[Row]) -> list[Row]:
    return [Row(row.slot, row.example, row.position) for row in rows]


def losses_and_gradients(
    name: str, rows: list[Row], max_tokens: int, dtype: torch.dtype = torch.float64
) -> tuple[dict[int, np.ndarray], torch.Tensor]:
    """Token losses of each row by its position, and the gradients of their sum, in which every row weighs differently."""
    model = family(name).to(dtype)
    scalings = (Scaling(), Scaling(rule="rslora"), Scaling(rule="constant", scale=0.5))
    ranks = ((1, 3, 2), (2, 1), (4,))
    pack = random_pack(model, [mixed_rank_map(model, s, r) for s, r in zip(scalings, ranks, strict=True)])
    found = {}
    for batch, losses in token_losses(model, pack, rows, max_tokens=max_tokens):
        by_row = [losses.loss_M[losses.row_M == n] for n in range(len(batch.rows))]
        sum((loss * (1 + row.position)).sum() for row, loss in zip(batch.rows, by_row, strict=True)).backward()
        found |= {row.position: loss.detach().numpy() for row, loss in zip(batch.rows, by_row, strict=True)}
    gradients = pack.grads_KP.clone()
    pack.detach()
    return found, gradients


def assert_same_losses(found: dict[int, np.ndarray], expected: dict[int, np.ndarray]) -> None:
    for position, loss in expected.items():
        np.testing.assert_allclose(found[position], loss, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(("max_tokens", "dtype"), [(1, torch.float64), (25, torch.float64), (10_000, torch.float32)])
def test_sharing_prefixes_changes_neither_losses_nor_gradients(name, max_tokens, dtype):
    rows = two_template_rows()
    expected, expected_gradients = losses_and_gradients(name, whole(rows), 10_000, dtype)
    found, gradients = losses_and_gradients(name, rows, max_tokens, dtype)
    assert found.keys() == expected.keys() == set(range(len(rows)))
    assert_same_losses(found, expected)
    assert (expected_gradients.norm(dim=1) > 0.1).all()
    difference_K = (gradients - expected_gradients).norm(dim=1) / expected_gradients.norm(dim=1)
    assert (difference_K < TOLERANCE[dtype]).all(), difference_K


@pytest.mark.parametrize("name", FAMILIES)
def test_mixed_slots_have_the_losses_and_gradients_of_each_slot_alone(name):
    rows = two_template_rows()
    mixed, gradients = losses_and_gradients(name, rows, 40)
    for slot in range(3):
        mine = [row for row in rows if row.slot == slot]
        solo, solo_gradients = losses_and_gradients(name, whole(mine), 1)
        assert_same_losses(mixed, solo)
        others = [k for k in range(3) if k != slot]
        assert not solo_gradients[others].any()
        difference = (gradients[slot] - solo_gradients[slot]).norm() / solo_gradients[slot].norm()
        assert difference < TOLERANCE[torch.float64]


def test_a_shared_prefix_is_computed_once_per_slot_and_pass():
    """32 rows of one slot with a prefix of 9 tokens cost 9 + their own tokens, not 32 x 9 more."""
    model, rows = family("llama"), []
    for index in range(32):
        ids = np.concatenate([TEMPLATES[0], np.arange(index, index + 4) % VOCAB]).astype(np.int64)
        rows.append(Row(0, TokenizedExample(ids, 11, index), index, 9))
    num_tokens = []
    hook = model.model.embed_tokens.register_forward_hook(lambda _m, args, _out: num_tokens.append(args[0].numel()))
    with torch.no_grad():
        list(token_losses(model, None, rows, max_tokens=1000))
    hook.remove()
    assert num_tokens == [9, 32 * 4]


def test_the_bare_model_takes_no_adapter_and_no_gradient():
    model, rows = family("llama"), two_template_rows()
    with torch.no_grad():
        shared = [
            loss for _, losses in token_losses(model, None, rows, max_tokens=30) for loss in losses.loss_M.tolist()
        ]
        alone = [
            loss
            for _, losses in token_losses(model, None, whole(rows), max_tokens=9)
            for loss in losses.loss_M.tolist()
        ]
    np.testing.assert_allclose(sorted(shared), sorted(alone), atol=1e-5)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_two_steps_in_a_row_do_not_disturb_each_other():
    """The graph of the first pass is gone when the second begins."""
    rows = two_template_rows()
    model = family("llama")
    pack = random_pack(model, [mixed_rank_map(model, Scaling())] * 3)
    totals = []
    for _ in range(2):
        pack.grads_KP.zero_()
        for _, losses in token_losses(model, pack, rows, max_tokens=40):
            losses.loss_M.sum().backward()
        totals.append(pack.grads_KP.clone())
    assert torch.equal(*totals)
    assert totals[0].any()
    pack.detach()


def test_rows_come_in_micro_batches_of_one_prefix_each():
    model, rows = family("llama"), two_template_rows()
    with torch.no_grad():
        batches = [batch for batch, _ in token_losses(model, None, rows, max_tokens=30)]
    assert all(len({row.prefix for row in batch.rows}) == 1 for batch in batches)
    seen = list(itertools.chain(*(batch.rows for batch in batches)))
    assert sorted(row.position for row in seen) == list(range(len(rows)))
