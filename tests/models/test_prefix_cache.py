import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, MambaConfig, MambaForCausalLM

from rankwise.models.prefix_cache import PrefixCache, can_share_prefixes
from tests.families import COMMON, FAMILIES, family, mistral


@pytest.mark.parametrize("name", FAMILIES)
def test_full_attention_can_share_prefixes(name):
    assert can_share_prefixes(family(name))


def test_sliding_windows_cannot():
    assert not can_share_prefixes(mistral(sliding_window=4))
    assert can_share_prefixes(mistral(sliding_window=None))


def test_models_that_mix_sliding_windows_with_full_attention_cannot():
    config = Gemma2Config(**COMMON, intermediate_size=24, num_key_value_heads=1, head_dim=8, sliding_window=4)
    assert not can_share_prefixes(Gemma2ForCausalLM(config))


def test_recurrent_states_cannot():
    config = MambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=2, state_size=4)
    assert not can_share_prefixes(MambaForCausalLM(config))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_row_continues_its_own_prefix(name):
    model = family(name)
    prefixes_GP = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
    own_NT = torch.tensor([[20, 21, 22], [23, 24, 25], [26, 27, 28]])
    prefix_N = torch.tensor([1, 0, 1])
    with torch.no_grad():
        cache = PrefixCache(model, prefixes_GP)
        found = model(input_ids=own_NT, past_key_values=cache.for_rows(prefix_N), use_cache=True).logits
        whole = model(input_ids=torch.cat([prefixes_GP[prefix_N], own_NT], dim=1)).logits
    torch.testing.assert_close(found, whole[:, 4:], atol=1e-5, rtol=1e-5)


def test_rows_do_not_lengthen_the_prefix_for_each_other():
    model = family("llama")
    with torch.no_grad():
        cache = PrefixCache(model, torch.tensor([[5, 6, 7, 8]]))
        row = torch.tensor([[20, 21, 22]])
        first, second = (
            model(input_ids=row, past_key_values=cache.for_rows(torch.tensor([0])), use_cache=True).logits
            for _ in range(2)
        )
    assert torch.equal(first, second)


def test_backward_without_any_gradient_is_nothing():
    with torch.no_grad():
        cache = PrefixCache(family("llama"), torch.tensor([[5, 6, 7, 8]]))
    cache.backward()
