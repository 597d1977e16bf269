"""One tiny random model of each family whose layers differ in kind, and packs of random adapters on them."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedModel,
)

from rankwise.allocation.rank_map import RankMap, Scaling
from rankwise.lora.pack import AdapterPack, SlotPlan
from rankwise.models.sites import find_sites
from tests.tiny import VOCAB, tiny_llama

COMMON = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 1,
}


def gpt2() -> PreTrainedModel:
    names = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB, bos_token_id=0, eos_token_id=1, **names))


def opt() -> PreTrainedModel:
    return OPTForCausalLM(OPTConfig(**COMMON, ffn_dim=24, word_embed_proj_dim=16, pad_token_id=2))


def gpt_neox() -> PreTrainedModel:
    return GPTNeoXForCausalLM(GPTNeoXConfig(**COMMON, intermediate_size=24))


def phi() -> PreTrainedModel:
    return PhiForCausalLM(PhiConfig(**COMMON, intermediate_size=24))


def phi3() -> PreTrainedModel:
    """Query, key and value in one projection, gate and up in another; the head is the embedding table."""
    shape = {"intermediate_size": 24, "num_key_value_heads": 1, "pad_token_id": 2, "tie_word_embeddings": True}
    return Phi3ForCausalLM(Phi3Config(**COMMON, **shape))


def mistral(sliding_window: int | None) -> PreTrainedModel:
    config = MistralConfig(**COMMON, intermediate_size=24, num_key_value_heads=1, sliding_window=sliding_window)
    return MistralForCausalLM(config)


FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": tiny_llama,
    "gpt2": gpt2,
    "opt": opt,
    "gpt_neox": gpt_neox,
    "phi": phi,
    "phi3": phi3,
}


def family(name: str) -> PreTrainedModel:
    """The same weights at every call, larger than a fresh model's so that differences show."""
    torch.manual_seed(0)
    model = FAMILIES[name]().eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.2)
    return model


def mixed_rank_map(model: PreTrainedModel, scaling: Scaling, ranks: Sequence[int] = (1, 3, 2)) -> RankMap:
    """Ranks that take turns over the sites."""
    sites = find_sites(model)
    chosen = tuple(ranks[index % len(ranks)] for index in range(len(sites)))
    return RankMap(
        sites=sites,
        ranks=chosen,
        scales=tuple(scaling.at(rank) for rank in chosen),
        budget_params=sum(rank * site.cost for rank, site in zip(chosen, sites, strict=True)),
    )


def random_pack(model: PreTrainedModel, rank_maps: Sequence[RankMap], seed: int = 0) -> AdapterPack:
    """Both matrices of every site drawn at random, as after some training."""
    plans = [SlotPlan(rank_map=rank_map, init="kaiming", seed=seed) for rank_map in rank_maps]
    pack = AdapterPack(model, plans, compute_dtype=next(model.parameters()).dtype)
    generator = torch.Generator().manual_seed(seed)
    pack.weights_KP.copy_(0.1 * torch.randn(pack.weights_KP.shape, generator=generator))
    pack.refresh()
    return pack


def random_prompts(lengths: Sequence[int], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(3, VOCAB, length).astype(np.int64) for length in lengths]
