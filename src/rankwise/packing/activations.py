"""What a forward pass keeps for its backward pass, asked of the model itself instead of a formula per family.

N = rows, T = tokens of a row.

Autograd says what it keeps. On the meta device a pass computes nothing, so even a model of billions of weights can be
asked before it is loaded. What is kept grows with the tokens, and through attention scores with tokens x row length.
Blocks before the first adapted layer keep nothing, and a wide MLP, a gate or an unfused activation count for what they
are. Fused attention has no meta kernel, so there the scores that plain attention would keep are counted with it.

With gradient checkpointing a block keeps its inputs; what it would keep else is there while it is differentiated.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves
from transformers import DynamicCache, PreTrainedModel

from rankwise.models.gradient_checkpointing import blocks_run_by
from rankwise.packing.growth import Growth
from rankwise.packing.live_tensors import storage_id

DEFAULT_MICRO_TOKENS = 2048
"""Larger passes are not faster (docs/log.md)."""
TARGET_BYTES = 2**30
"""What the activations of a micro-batch may take: 2,048 tokens of a small model, a few hundred of a wide one, whose
products are large enough to keep a processor busy all the same."""
CUDA_TARGET_BYTES = 8 * 2**30
"""The same on a device that wants more to do at once."""

_PROBE_TOKENS = (8, 16)


@dataclass(frozen=True, kw_only=True)
class ActivationSize(Growth):
    """What a row keeps until the backward pass; the adapters' own is not in it."""

    block_per_token: float = 0.0
    block_per_pair: float = 0.0
    """Both of what the largest block keeps besides, with gradient checkpointing, while it is differentiated; 0 without:
    it is among the rest then."""

    @property
    def is_checkpointed(self) -> bool:
        """Whether a block's activations are there only while it is differentiated."""
        return self.block_per_token > 0

    def of_block(self, row_tokens: int) -> float:
        """Bytes that each token of such rows keeps besides, of one checkpointed block."""
        return self.block_per_token + self.block_per_pair * row_tokens


def measure_activations(
    model: PreTrainedModel, sites: Collection[str], *, gradient_checkpointing: bool = False
) -> ActivationSize:
    """Ask `model`, on whatever device it is, what training adapters at the layers named `sites` keeps.

    Runs the decoder over 48 tokens in all. The model's parameters must be frozen.

    Raises:
        ModelError: gradient checkpointing is asked for, and the model has no list of blocks.
    """
    with adapted(model, sites):
        short, long = (
            _of_one_row(*(_count_kept(model, num_rows, num, gradient_checkpointing) for num_rows in (1, 2)))
            for num in _PROBE_TOKENS
        )
    whole = Growth.fit(_PROBE_TOKENS, (short[0], long[0]))
    block = Growth.fit(_PROBE_TOKENS, (short[1], long[1]))
    return ActivationSize(
        per_token=whole.per_token,
        per_pair=whole.per_pair,
        block_per_token=block.per_token,
        block_per_pair=block.per_pair,
    )


def choose_micro_tokens(size: ActivationSize, *, longest_tokens: int, on_host: bool) -> int:
    """Padded tokens of a micro-batch: the default, or as many as the target holds; never below the longest row."""
    target = TARGET_BYTES if on_host else CUDA_TARGET_BYTES
    kept = size.of_token(longest_tokens) + size.of_block(longest_tokens)
    return max(longest_tokens, min(DEFAULT_MICRO_TOKENS, int(target / max(1.0, kept))))


@dataclass(eq=False)
class _Kept:
    """Storages that a pass keeps, by the pass as a whole and by each block that is checkpointed."""

    whole: dict[int, torch.Tensor] = field(default_factory=dict)
    of_blocks: list[dict[int, torch.Tensor]] = field(default_factory=list)

    def num_bytes(self) -> tuple[int, list[int]]:
        """Of the whole pass; and of each block what the whole pass does not keep anyway."""
        blocks = [{key: tensor for key, tensor in block.items() if key not in self.whole} for block in self.of_blocks]
        return _bytes(self.whole), [_bytes(block) for block in blocks]


def _of_one_row(one: tuple[int, list[int]], two: tuple[int, list[int]]) -> tuple[int, int]:
    """What a second row adds, to the whole pass and to the block that it adds most to."""
    return two[0] - one[0], max((more - less for less, more in zip(one[1], two[1], strict=True)), default=0)


def _count_kept(
    model: PreTrainedModel, num_rows: int, num_tokens: int, gradient_checkpointing: bool
) -> tuple[int, list[int]]:
    owned = {storage_id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    kept = _Kept()

    def into(storages: dict[int, torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
        def keep(tensor: torch.Tensor) -> torch.Tensor:
            if storage_id(tensor) not in owned:
                storages[storage_id(tensor)] = tensor  # held, so that no other storage gets its address
            return tensor

        return keep

    def run_block(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        kept.of_blocks.append({})
        with torch.autograd.graph.saved_tensors_hooks(into(kept.of_blocks[-1]), lambda tensor: tensor):
            output = forward(*args, **kwargs)
        if kept.of_blocks[-1]:  # one that keeps nothing needs no second run
            for tensor in _tensors(args, kwargs):
                into(kept.whole)(tensor)
        return output

    device = next(model.parameters()).device
    ids_NT = torch.zeros(num_rows, num_tokens, dtype=torch.long, device=device)
    # An empty cache keeps what attention would keep anyway, and spares the model a look at values that meta has not.
    cache = DynamicCache()
    with (
        torch.enable_grad(),
        blocks_run_by(model, run_block) if gradient_checkpointing else nullcontext(),
        torch.autograd.graph.saved_tensors_hooks(into(kept.whole), lambda tensor: tensor),
    ):
        output = model.base_model(input_ids=ids_NT, past_key_values=cache, use_cache=True)
    del output
    return kept.num_bytes()


def _tensors(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]


def _bytes(storages: dict[int, torch.Tensor]) -> int:
    return sum(tensor.untyped_storage().nbytes() for tensor in storages.values())


class _KeepInput(torch.autograd.Function):
    """Keeps what a packed layer keeps, its input, and hands the base's output on."""

    @staticmethod
    def forward(ctx: Any, y: torch.Tensor, x: torch.Tensor, anchor: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        """Gradients of the right shapes; nobody reads them."""
        (x,) = ctx.saved_tensors
        return grads[0], torch.empty_like(x), None


@contextmanager
def adapted(model: nn.Module, sites: Collection[str]) -> Iterator[None]:
    """Within, the layers named `sites` keep what packed ones keep, and want gradients of the same shapes."""
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
