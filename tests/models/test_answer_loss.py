import numpy as np
import pytest
import torch
from torch.nn import functional

from rankwise.models.answer_loss import answer_token_losses
from tests.families import FAMILIES, family, random_prompts

LENGTHS = (9, 4, 12, 6)
NUM_PROMPT = (3, 1, 10, 2)


def padded_batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Rows padded on the right with a token that also occurs in them."""
    ids_NT = torch.full((len(LENGTHS), max(LENGTHS)), 7)
    answer_NT = torch.zeros_like(ids_NT, dtype=torch.bool)
    for row, (prompt, num) in enumerate(zip(random_prompts(LENGTHS), NUM_PROMPT, strict=True)):
        ids_NT[row, : len(prompt)] = torch.from_numpy(prompt)
        answer_NT[row, num : len(prompt)] = True
    return ids_NT, answer_NT


@pytest.mark.parametrize("name", FAMILIES)
def test_the_mean_is_the_loss_of_the_model_with_labels(name):
    """Transformers ignores labels of -100 and shifts them itself; each row alone there, so there is no padding."""
    model = family(name)
    ids_NT, answer_NT = padded_batch()
    found = answer_token_losses(model, ids_NT, answer_NT)
    for row, length in enumerate(LENGTHS):
        labels = torch.where(answer_NT[row], ids_NT[row], -100)[None, :length]
        expected = model(input_ids=ids_NT[row : row + 1, :length], labels=labels).loss
        torch.testing.assert_close(found.loss_M[found.row_M == row].mean(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_each_token_has_its_own_loss_row_and_hit(name):
    model = family(name)
    ids_NT, answer_NT = padded_batch()
    found = answer_token_losses(model, ids_NT, answer_NT)
    logits_NTV = model(input_ids=ids_NT, attention_mask=torch.ones_like(ids_NT)).logits
    places = [(n, t) for n, t in answer_NT.nonzero().tolist()]
    assert found.row_M.tolist() == [n for n, _ in places]
    expected = [functional.cross_entropy(logits_NTV[n, t - 1], ids_NT[n, t]).item() for n, t in places]
    np.testing.assert_allclose(found.loss_M.tolist(), expected, atol=1e-5, rtol=1e-5)
    assert found.correct_M.tolist() == [bool(logits_NTV[n, t - 1].argmax() == ids_NT[n, t]) for n, t in places]


def test_a_token_that_is_the_most_probable_one_counts_as_correct():
    model = family("llama")
    ids_NT, answer_NT = padded_batch()
    first = NUM_PROMPT[0]
    ids_NT[0, first] = model(input_ids=ids_NT[:1, :first]).logits[0, -1].argmax()
    assert answer_token_losses(model, ids_NT, answer_NT).correct_M[0]


def test_only_answer_positions_reach_the_output_head():
    model = family("llama")
    ids_NT, answer_NT = padded_batch()
    shapes = []
    hook = model.lm_head.register_forward_hook(lambda _module, args, _out: shapes.append(tuple(args[0].shape)))
    answer_token_losses(model, ids_NT, answer_NT)
    hook.remove()
    assert shapes == [(int(answer_NT.sum()), model.config.hidden_size)]


def test_the_model_is_as_before_even_after_an_error():
    model = family("llama")
    ids_NT, answer_NT = padded_batch()
    before = model(input_ids=ids_NT).logits
    answer_token_losses(model, ids_NT, answer_NT)
    with pytest.raises(IndexError):
        answer_token_losses(model, ids_NT + 1000, answer_NT)
    assert not model.lm_head._forward_pre_hooks
    assert torch.equal(model(input_ids=ids_NT).logits, before)


def test_losses_are_float32_whatever_the_model_computes_in():
    model = family("llama").to(torch.bfloat16)
    ids_NT, answer_NT = padded_batch()
    assert answer_token_losses(model, ids_NT, answer_NT).loss_M.dtype == torch.float32
