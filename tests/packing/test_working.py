"""What a pass is said to hold for a moment, against the tensors that are alive in a real packed pass."""

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, OPTConfig

from rankwise.allocation import RankMap
from rankwise.lora.pack import AdapterPack, SlotPlan
from rankwise.models.sites import find_sites
from rankwise.packing.activations import measure_activations
from rankwise.packing.growth import Growth
from rankwise.packing.live_tensors import LiveTensors
from rankwise.packing.working import WorkingSize, measure_working

SIZES = {"num_hidden_layers": 3, "num_attention_heads": 4, "hidden_size": 32}
CONFIGS = {
    "llama": LlamaConfig(**SIZES, intermediate_size=88, num_key_value_heads=2, vocab_size=50),
    "gpt2": GPT2Config(n_embd=32, n_layer=3, n_head=4, vocab_size=50),
    "short": LlamaConfig(**SIZES, max_position_embeddings=24),
    "opt": OPTConfig(**SIZES, ffn_dim=96, word_embed_proj_dim=32, vocab_size=50, pad_token_id=None),
}


def build(name, device):
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation="eager")
    return model.requires_grad_(False).eval()


@pytest.mark.parametrize("num_tokens", [12, 200])
@pytest.mark.parametrize("name", ["llama", "gpt2", "opt"])
def test_it_is_what_a_packed_pass_has_alive_beyond_what_it_keeps(name, num_tokens):
    """Short rows are fullest in a linear layer, long ones around the attention scores."""
    model = build(name, "cpu")
    sites = find_sites(model)
    size = measure_activations(model, [site.name for site in sites])
    working = measure_working(build(name, "meta"))
    rank_map = RankMap(sites=sites, ranks=(1,) * len(sites), scales=(1.0,) * len(sites), budget_params=10**6)
    plans = [SlotPlan(rank_map=rank_map, init="kaiming", seed=slot) for slot in range(2)]
    pack = AdapterPack(model, plans, compute_dtype=torch.float32)
    ids = torch.zeros(8, num_tokens, dtype=torch.long)
    owned = (*model.parameters(), *model.buffers(), pack.weights_KP, pack.grads_KP, ids)
    found = {}
    for trains in (True, False):
        with torch.set_grad_enabled(trains), pack.active_rows(torch.arange(8) % 2), LiveTensors(owned) as live:
            hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
            if trains:
                hidden.backward(torch.ones_like(hidden))
        kept = ids.numel() * size.of_token(num_tokens) if trains else 0
        found[trains] = kept + ids.numel() * working.of_token(num_tokens, trains=trains), live.peak_bytes
    pack.detach()
    for predicted, measured in found.values():
        assert predicted == pytest.approx(measured, rel=0.07)


def test_the_fuller_of_two_moments_counts():
    flat, steep = Growth(per_token=100.0, per_pair=0.0), Growth(per_token=-20.0, per_pair=4.0)
    size = WorkingSize(training=(flat, steep), scoring=(flat,))
    assert [size.of_token(num, trains=True) for num in (10, 30, 50)] == [100.0, 100.0, 180.0]
    assert size.of_token(50, trains=False) == 100.0


def test_rows_are_never_longer_than_the_context():
    assert len(measure_working(build("short", "meta")).training) == 1
