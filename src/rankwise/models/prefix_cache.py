"""Keys and values of prompt prefixes that many rows share, computed once and differentiated once.

G = prefixes (one per slot and text), N = rows, P = tokens of a prefix, H = heads, D = size of a head.

Instruction data begins every prompt with the same template. A decoder's positions see only what is to their left, so
the keys and values of such a prefix are the same for all rows of a slot, and a row needs to be computed only from where
it begins to differ.
"""

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer


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
        layers = model.base_model(input_ids=input_ids_GP, use_cache=True).past_key_values.layers
        self._computed = [tensor for layer in layers for tensor in (layer.keys, layer.values)]
        # Several micro-batches read the prefix, each with a backward pass of its own; their gradients meet in these
        # leaves, and `backward` then goes through the prefix once.
        self._leaves = [t.detach().requires_grad_(t.requires_grad) for t in self._computed]
        self.num_tokens = input_ids_GP.shape[1]

    def for_rows(self, prefix_N: torch.Tensor) -> DynamicCache:
        """A cache whose row n continues prefix `prefix_N[n]`."""
        cache = DynamicCache()
        for layer in range(len(self._leaves) // 2):
            keys, values = self._leaves[2 * layer : 2 * layer + 2]
            cache.update(keys.index_select(0, prefix_N), values.index_select(0, prefix_N), layer)
        return cache

    def backward(self) -> None:
        """Send what the rows' backward passes have summed through the prefixes."""
        reached = [
            (t, leaf.grad) for t, leaf in zip(self._computed, self._leaves, strict=True) if leaf.grad is not None
        ]
        if reached:
            tensors, gradients = zip(*reached, strict=True)
            torch.autograd.backward(tensors, gradients)
