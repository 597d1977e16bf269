"""Gradient checkpointing: a decoder block keeps its inputs alone, and runs again when its backward pass comes.

Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv:1604.06174, with one segment a block. The second run
is the first one again, on the same numbers, so losses and gradients are bit for bit what they are without.

Transformers has a switch for this, which acts only on a model in training mode, where the base's own dropout would be
on, and which takes away the cache that shared prefixes are read from (models/prefix_cache.py). So the blocks are
wrapped here, whatever the family. What a block reads besides its inputs, such as the slots of a pack's rows, must be in
place during the backward pass too, and a cache that it writes to must be one that takes no second writing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from rankwise.errors import ModelError
from rankwise.models.sites import find_blocks

RunBlock = Callable[..., Any]
"""Called with a block's own forward and the arguments that it was called with; gives what that forward gives."""


@contextmanager
def checkpointed_blocks(model: nn.Module) -> Iterator[None]:
    """Within, forward passes that record gradients keep each block's inputs and no more of it.

    Raises:
        ModelError: the model has no list of blocks.
    """
    with blocks_run_by(model, _run_checkpointed):
        yield


@contextmanager
def blocks_run_by(model: nn.Module, run: RunBlock) -> Iterator[None]:
    """Within, every block of `model` is run by `run`.

    Raises:
        ModelError: the model has no list of blocks.
    """
    blocks = find_blocks(model)
    if not blocks:
        raise ModelError(
            f"train.gradient_checkpointing: true: {type(model).__name__} has no list of repeated blocks, whose inputs "
            "could be kept in place of all that they compute. Leave the setting out for this model."
        )
    earlier = [vars(block).get("forward") for block in blocks]  # of its own, where a library has put one there
    for block in blocks:
        block.forward = partial(run, block.forward)
    try:
        yield
    finally:
        for block, own in zip(blocks, earlier, strict=True):
            del block.forward
            if own is not None:
                block.forward = own


def _run_checkpointed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    # No state of a random generator is kept: base dropout is off, and adapters draw theirs by name (lora/dropout.py).
    return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)
