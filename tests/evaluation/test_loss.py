import numpy as np
import pytest
import torch

from rankwise.allocation.rank_map import Scaling
from rankwise.evaluation.loss import score_slots
from rankwise.models.answer_loss import answer_token_losses
from tests.families import family, mixed_rank_map, random_pack
from tests.tiny import templated_data, tiny_examples

EXAMPLES = {0: tiny_examples(5, 1), 1: tiny_examples(7, 2), 3: tiny_examples(2, 3)}


@pytest.fixture(scope="module")
def packed():
    model = family("llama")
    scalings = [Scaling(), Scaling(rule="rslora"), Scaling(alpha=4.0), Scaling(rule="constant")]
    pack = random_pack(model, [mixed_rank_map(model, scaling) for scaling in scalings])
    yield model, pack
    pack.detach()


def test_sums_are_those_of_each_example_alone(packed):
    model, pack = packed
    scores = score_slots(model, pack, EXAMPLES, max_tokens=40)
    assert scores.keys() == EXAMPLES.keys()
    for slot, examples in EXAMPLES.items():
        for number, example in enumerate(examples):
            ids = torch.from_numpy(example.input_ids)[None]
            answer = torch.arange(ids.shape[1])[None] >= example.num_prompt_tokens
            with torch.no_grad(), pack.active_rows(torch.tensor([slot])):
                alone = answer_token_losses(model, ids, answer)
            assert scores[slot].loss_nats_E[number] == pytest.approx(alone.loss_M.double().sum().item(), rel=1e-5)
            assert scores[slot].answer_tokens_E[number] == example.num_answer_tokens
            assert scores[slot].correct_tokens_E[number] == int(alone.correct_M.sum())


@pytest.mark.parametrize("max_tokens", [1, 30, 10_000])
def test_slots_scored_together_are_those_scored_alone(packed, max_tokens):
    model, pack = packed
    together = score_slots(model, pack, EXAMPLES, max_tokens=max_tokens)
    for slot, examples in EXAMPLES.items():
        alone = score_slots(model, pack, {slot: examples}, max_tokens=10_000)[slot]
        np.testing.assert_allclose(together[slot].loss_nats_E, alone.loss_nats_E, rtol=1e-5)
        assert np.array_equal(together[slot].answer_tokens_E, alone.answer_tokens_E)
        assert np.array_equal(together[slot].correct_tokens_E, alone.correct_tokens_E)


def test_sharing_prefixes_changes_no_score(packed):
    model, pack = packed
    data = templated_data()
    examples = {0: data.validation, 2: data.test}
    assert any(example.num_shared_tokens for example in data.test)
    shared = score_slots(model, pack, examples, max_tokens=50)
    whole = score_slots(model, pack, examples, max_tokens=50, share_prefixes=False)
    for slot in examples:
        np.testing.assert_allclose(shared[slot].loss_nats_E, whole[slot].loss_nats_E, rtol=1e-5)


def test_without_a_pack_the_bare_model_is_scored(packed):
    model, pack = packed
    bare = score_slots(model, None, {0: EXAMPLES[0]}, max_tokens=100)[0]
    fresh = score_slots(family("llama"), None, {0: EXAMPLES[0]}, max_tokens=100)[0]
    assert np.array_equal(bare.loss_nats_E, fresh.loss_nats_E)
    assert not np.allclose(bare.loss_nats_E, score_slots(model, pack, {0: EXAMPLES[0]}, max_tokens=100)[0].loss_nats_E)


def test_a_record_totals_the_examples(packed):
    model, pack = packed
    scores = score_slots(model, pack, {0: EXAMPLES[0]}, max_tokens=100)[0]
    record = scores.to_record("abc", "test", 7)
    assert (record.run_id, record.split, record.step) == ("abc", "test", 7)
    assert record.num_examples == len(EXAMPLES[0])
    assert record.num_answer_tokens == sum(example.num_answer_tokens for example in EXAMPLES[0])
    assert record.loss_nats == pytest.approx(scores.loss_nats_E.sum() / record.num_answer_tokens)
    assert record.token_accuracy == scores.correct_tokens_E.sum() / record.num_answer_tokens
    assert record.perplexity == pytest.approx(np.exp(record.loss_nats))
