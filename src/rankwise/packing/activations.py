"""What a forward pass keeps for its backward pass, asked of the model itself instead of a formula per family.

N = rows, T = tokens of a row.

Autograd says what it keeps. On the meta device a pass computes nothing, so even a model of billions of weights can be
asked before it is loaded. What is kept grows with the tokens, and through attention scores with tokens x row length.
Blocks before the first adapted layer keep nothing, and a wide MLP, a gate or an unfused activation count for what they
are. Fused attention has no meta kernel, so there the scores that plain attention would keep are counted with it.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache, PreTrainedModel

DEFAULT_MICRO_TOKENS = 2048
"""Larger passes are not faster (docs/log.md)."""
TARGET_BYTES = 2**30
"""What the activations of a micro-batch may take: 2,048 tokens of a small model, a few hundred of a wide one, whose
products are large enough to keep a processor busy all the same."""
CUDA_TARGET_BYTES = 8 * 2**30
"""The same on a device that wants more to do at once."""

_PROBE_TOKENS = (8, 16)


@dataclass(frozen=True, kw_only=True)
class ActivationSize:
    """Bytes that one row of T tokens keeps: `per_token` T + `per_pair` T². The adapters' own are not in it."""

    per_token: float
    per_pair: float

    def of_token(self, row_tokens: int) -> float:
        """Bytes for each token of rows that long."""
        return self.per_token + self.per_pair * row_tokens


def measure_activations(model: PreTrainedModel, sites: Collection[str]) -> ActivationSize:
    """Ask `model`, on whatever device it is, what training adapters at the layers named `sites` keeps.

    Runs the decoder over 48 tokens in all. The model's parameters must be frozen.
    """
    with _adapted(model, sites):
        short, long = (_kept_bytes(model, 2, num) - _kept_bytes(model, 1, num) for num in _PROBE_TOKENS)
    few, many = _PROBE_TOKENS
    per_pair = (long / many - short / few) / (many - few)
    return ActivationSize(per_token=short / few - per_pair * few, per_pair=per_pair)


def choose_micro_tokens(size: ActivationSize, *, longest_tokens: int, on_host: bool) -> int:
    """Padded tokens of a micro-batch: the default, or as many as the target holds; never below the longest row."""
    target = TARGET_BYTES if on_host else CUDA_TARGET_BYTES
    return max(longest_tokens, min(DEFAULT_MICRO_TOKENS, int(target / max(1.0, size.of_token(longest_tokens)))))


def _kept_bytes(model: PreTrainedModel, num_rows: int, num_tokens: int) -> int:
    owned = {_storage(tensor) for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if _storage(tensor) not in owned:
            kept[_storage(tensor)] = tensor  # held, so that no other storage gets its address
        return tensor

    device = next(model.parameters()).device
    ids_NT = torch.zeros(num_rows, num_tokens, dtype=torch.long, device=device)
    # An empty cache keeps what attention would keep anyway, and spares the model a look at values that meta has not.
    cache = DynamicCache()
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model.base_model(input_ids=ids_NT, past_key_values=cache, use_cache=True)
    del output
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def _storage(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


class _KeepInput(torch.autograd.Function):
    """Keeps what a packed layer keeps, its input, and hands the base's output on."""

    @staticmethod
    def forward(ctx: Any, y: torch.Tensor, x: torch.Tensor, anchor: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        raise NotImplementedError("activations are counted, not differentiated")


@contextmanager
def _adapted(model: nn.Module, sites: Collection[str]) -> Iterator[None]:
    anchor = torch.zeros((), device=next(model.parameters()).device, requires_grad=True)

    def hook(_layer: nn.Module, args: tuple[torch.Tensor, ...], y: torch.Tensor) -> torch.Tensor:
        kept: torch.Tensor = _KeepInput.apply(y, args[0], anchor)
        return kept

    handles = [model.get_submodule(site).register_forward_hook(hook) for site in sites]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
