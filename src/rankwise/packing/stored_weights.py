"""Bytes of a base model's weights as they are stored, counted on its modules; no weights are needed.

Only linear layers are quantized: embeddings, norms, biases, the output head and whatever is tied to an embedding keep
their number format, so a 4-bit model with a large vocabulary is far from a quarter of its size in 16 bits.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

BLOCK_WEIGHTS = 64
"""Weights that share one scale in 4 bits; their scales, quantized to a byte, share one in turn (QLoRA,
arXiv:2305.14314, section 3)."""
BLOCK_SCALES = 256


@dataclass(frozen=True, kw_only=True)
class StoredWeights:
    """Of one base model in one form."""

    num_bytes: int
    largest_quantized: int
    """Weights of the largest matrix that is quantized: it is unpacked when its layer is differentiated; 0 where none
    is."""


def count_stored(model: PreTrainedModel, quantization: str, compute_bytes: int) -> StoredWeights:
    """What `model` (unquantized, on the meta device) takes once its linear layers are stored as `quantization`."""
    quantized = [] if quantization == "none" else _quantized_weights(model)
    packed = sum(_packed_bytes(weight, quantization) for weight in quantized)
    rest = model.num_parameters() - sum(weight.numel() for weight in quantized)
    return StoredWeights(
        num_bytes=packed + rest * compute_bytes,
        largest_quantized=max((weight.numel() for weight in quantized), default=0),
    )


def _quantized_weights(model: PreTrainedModel) -> list[torch.Tensor]:
    """Those that Transformers hands to bitsandbytes: all linear layers but the head and what is tied."""
    embedded = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    head = model.get_output_embeddings()
    return [
        module.weight
        for module in model.modules()
        if isinstance(module, (nn.Linear, Conv1D)) and module is not head and id(module.weight) not in embedded
    ]


def _packed_bytes(weight: torch.Tensor, quantization: str) -> int:
    if quantization == "int8":  # and one scale in float32 for each output
        return weight.numel() + 4 * max(weight.shape)
    num_scales = -(-weight.numel() // BLOCK_WEIGHTS)
    return -(-weight.numel() // 2) + num_scales + 4 * -(-num_scales // BLOCK_SCALES)
