"""What a pass holds for a moment beyond what it keeps, asked of the model itself as activations.py asks what is kept.

N = rows, T = tokens of a row.

A pass is run on the meta device while a dispatch mode counts the tensors that are alive. Two moments compete: in a
linear layer the temporaries grow with T, around the attention scores with T². Which one is fuller depends on T, so the
pass is run over short rows, where the first is, and over long ones, where the second is, and the larger counts. Two
blocks with every linear layer adapted stand for all: it is one block at a time, and another set of layers changes what
is kept, but hardly this.
"""

from dataclasses import dataclass

import torch
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel

from rankwise.models.context import context_tokens
from rankwise.models.short import short_config
from rankwise.models.sites import find_sites
from rankwise.packing.activations import ActivationSize, adapted, measure_activations
from rankwise.packing.growth import Growth
from rankwise.packing.live_tensors import LiveTensors

_SHORT = (8, 16)
_LONG = (1024, 2048)
_ROWS = 2
_BLOCKS = 2
_VOCAB = 64


@dataclass(frozen=True, kw_only=True)
class WorkingSize:
    """What is alive at the fullest moment, as the largest of several growths; the adapters' own is not in it."""

    training: tuple[Growth, ...]
    """Beyond what is kept for the backward pass."""
    scoring: tuple[Growth, ...]
    """Of a pass that keeps nothing."""

    def of_token(self, row_tokens: int, *, trains: bool) -> float:
        """Bytes for each token of rows that long."""
        return max(growth.of_token(row_tokens) for growth in (self.training if trains else self.scoring))


def measure_working(model: PreTrainedModel) -> WorkingSize:
    """Ask two blocks of the shape of `model` what passes hold for a moment. No weights are needed."""
    short = _short_skeleton(model)
    sites = [site.name for site in find_sites(short)]
    kept = measure_activations(short, sites)
    longest = min(_LONG[1], context_tokens(model))
    pairs = [_SHORT] + ([(longest // 2, longest)] if longest >= 2 * _SHORT[1] else [])
    with adapted(short, sites):
        fullest = {length: _fullest_bytes(short, length, kept) for pair in pairs for length in pair}
    training, scoring = (
        tuple(Growth.fit((few, many), (fullest[few][which], fullest[many][which])) for few, many in pairs)
        for which in (0, 1)
    )
    return WorkingSize(training=training, scoring=scoring)


def _short_skeleton(model: PreTrainedModel) -> PreTrainedModel:
    config = short_config(model.config, num_blocks=_BLOCKS, vocab_size=_VOCAB)
    with torch.device("meta"):
        short = AutoModelForCausalLM.from_config(
            config, dtype=model.dtype, attn_implementation=config._attn_implementation
        )
    short.requires_grad_(False)
    return short.eval()


def _fullest_bytes(model: PreTrainedModel, num_tokens: int, kept: ActivationSize) -> tuple[float, float]:
    """Of one row of `num_tokens`: in training beyond what is kept, and in scoring."""
    ids_NT = torch.zeros(_ROWS, num_tokens, dtype=torch.long, device=next(model.parameters()).device)
    owned = (*model.parameters(), *model.buffers(), ids_NT)
    # An empty cache spares the model a look at values that meta has not. What it holds a backward pass keeps anyway;
    # a scoring pass has none.
    with torch.enable_grad(), LiveTensors(owned) as trained:
        output = model.base_model(input_ids=ids_NT, past_key_values=DynamicCache(), use_cache=True)
        hidden_NTD = output.last_hidden_state
        del output
        hidden_NTD.backward(torch.empty_like(hidden_NTD))
    cache = DynamicCache()
    with torch.no_grad(), LiveTensors(owned) as scored:
        model.base_model(input_ids=ids_NT, past_key_values=cache, use_cache=True)
    cache_bytes = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    kept_bytes = num_tokens * kept.of_token(num_tokens)
    return max(0.0, trained.peak_bytes / _ROWS - kept_bytes), (scored.peak_bytes - cache_bytes) / _ROWS
