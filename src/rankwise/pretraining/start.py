"""Where pretraining starts: from random weights, or from an earlier model that may have fewer blocks.

A block whose attention and MLP write nothing leaves what passes it unchanged, so blocks can be added without changing
what the model computes (Chen et al., "Net2Net", arXiv:1511.05641, section 3.2; here for residual blocks).
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

PRETRAINING = "pretraining.json"


@dataclass(frozen=True, kw_only=True)
class Start:
    """A model to train on, and what it has already seen of the corpus."""

    model: LlamaForCausalLM
    tokens_seen: int = 0
    """Tokens of the corpus, in the order of its windows, that training goes on behind."""
    from_layers: int | None = None
    """Blocks of the earlier model; None where the weights are random."""


def start_at_random(config: LlamaConfig, seed: int) -> Start:
    torch.manual_seed(seed)
    return Start(model=LlamaForCausalLM(config))


def start_from(folder: Path, config: LlamaConfig) -> Start:
    """The model in `folder`, grown to the depth of `config`, in float32.

    Raises:
        ValueError: its shape differs in more than a smaller depth.
    """
    earlier = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for name in ("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "max_position_embeddings"):
        was, wanted = getattr(earlier.config, name), getattr(config, name)
        if was != wanted:
            raise ValueError(f"--start: {folder} has {name} {was}, the configuration {wanted}; only depth can grow.")
    model = grow(earlier, config)
    seen = json.loads((folder / PRETRAINING).read_text(encoding="utf-8"))["tokens_seen"]
    return Start(model=model, tokens_seen=seen, from_layers=earlier.config.num_hidden_layers)


def grow(earlier: LlamaForCausalLM, config: LlamaConfig) -> LlamaForCausalLM:
    """A model of `config.num_hidden_layers` blocks that computes what `earlier` does.

    Added blocks stand evenly among the old ones. Each starts as a copy of the block before it that writes nothing:
    its output projections are zero, and learn from the first step on.
    """
    num_old, num_new = earlier.config.num_hidden_layers, config.num_hidden_layers
    if num_new < num_old:
        raise ValueError(f"a model of {num_old} blocks cannot grow to {num_new}.")
    model = LlamaForCausalLM(config)
    model.model.embed_tokens.load_state_dict(earlier.model.embed_tokens.state_dict())
    model.model.norm.load_state_dict(earlier.model.norm.state_dict())
    source_of = [place * num_old // num_new for place in range(num_new)]
    for place, source in enumerate(source_of):
        block = model.model.layers[place]
        block.load_state_dict(earlier.model.layers[source].state_dict())
        if place and source_of[place - 1] == source:
            nn.init.zeros_(block.self_attn.o_proj.weight)
            nn.init.zeros_(block.mlp.down_proj.weight)
    return model
