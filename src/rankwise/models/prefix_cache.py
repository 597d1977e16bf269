"""Keys and values of prompt prefixes that many rows share, computed once and differentiated once.

G = prefixes (one per slot and text), N = rows, P = tokens of a prefix, H = heads, D = size of a head.

Instruction data begins every prompt with the same template. A decoder's positions see only what is to their left, so
the keys and values of such a prefix are the same for all rows of a slot, and a row needs to be computed only from where
it begins to differ.

Neither kind of cache here changes when a block runs a second time, as it does under gradient checkpointing.
"""

from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer


def can_share_prefixes(model: PreTrainedModel) -> bool:
    """Whether all that a position needs of those before it are full keys and values.

    Not so with sliding windows, recurrent states or linear attention; such models compute each row whole.
    """
    if getattr(model, "_is_stateful", False):
        return False
    layers = DynamicCache(config=model.config).layers
    return bool(layers) and all(type(layer) is DynamicLayer for layer in layers)


class PrefixCache:
    """Keys and values of G prefixes of equal length."""

    def __init__(self, model: PreTrainedModel, input_ids_GP: torch.Tensor) -> None:
        """Run the decoder over the prefixes; where gradients are on, the graph is kept for `backward`."""
        cache = Cache(layer_class_to_replicate=_FirstStates)
        model.base_model(input_ids=input_ids_GP, past_key_values=cache, use_cache=True)
        self._computed = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
        # Several micro-batches read the prefix, each with a backward pass of its own; their gradients meet in these
        # leaves, and `backward` then goes through the prefix once.
        self._leaves = [t.detach().requires_grad_(t.requires_grad) for t in self._computed]
        self.num_tokens = input_ids_GP.shape[1]

    def for_rows(self, prefix_N: torch.Tensor) -> Cache:
        """A cache whose row n continues prefix `prefix_N[n]`."""
        pairs = zip(self._leaves[::2], self._leaves[1::2], strict=True)
        return Cache(layers=[_Continued(keys, values, prefix_N) for keys, values in pairs])

    def backward(self) -> None:
        """Send what the rows' backward passes have summed through the prefixes."""
        reached = [
            (t, leaf.grad) for t, leaf in zip(self._computed, self._leaves, strict=True) if leaf.grad is not None
        ]
        if reached:
            tensors, gradients = zip(*reached, strict=True)
            torch.autograd.backward(tensors, gradients)


class _FirstStates(DynamicLayer):
    """Holds what it was given first: the states of a block's first run."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.is_initialized:
            return DynamicLayer().update(key_states, value_states)
        return super().update(key_states, value_states)


class _Continued(DynamicLayer):
    """One block's prefixes, each put in front of the rows that continue it; holds nothing of the rows."""

    def __init__(self, keys_GHPD: torch.Tensor, values_GHPD: torch.Tensor, prefix_N: torch.Tensor) -> None:
        super().__init__()
        self.keys, self.values = keys_GHPD, values_GHPD
        self.dtype, self.device = keys_GHPD.dtype, keys_GHPD.device
        self.is_initialized = True
        self._prefix_N = prefix_N

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = (states.index_select(0, self._prefix_N) for states in (self.keys, self.values))
        return torch.cat([keys, key_states], dim=-2), torch.cat([values, value_states], dim=-2)
