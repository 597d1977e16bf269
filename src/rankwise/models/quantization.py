"""The weights of a base model in 8 or 4 bits, through bitsandbytes and Transformers' own configuration of it.

int8: eight bits a weight and one scale per output, the weights of LLM.int8() (Dettmers et al., arXiv:2208.07339). nf4,
fp4: four bits a weight and one scale per block of 64; with double quantization the scales are quantized as well (QLoRA,
Dettmers et al., arXiv:2305.14314). Only linear layers are quantized: embeddings, norms and the output head stay whole.

Three things that bitsandbytes does are left out, because a base is shared by runs that may not notice each other, and
must neither change nor depend on the device:

- An 8-bit layer in evaluation mode rounds activations to 8 bits too, except in columns where any row of the pass
  exceeds a threshold; a run's losses would depend on who else is in the pass. Here the weights are dequantized and
  multiplied in the activations' number format, as bitsandbytes itself does while training on a processor.
- On processors with AVX512-BF16 a 4-bit layer repacks its weights at its first call, for good and with scales rounded
  to bfloat16, after which they cannot be read as numbers.
- On processors, 4-bit weights are dequantized with scales of other blocks where a row is no multiple of a block
  (bitsandbytes 0.50: a relative error of 0.24 to 0.9 instead of 0.09, and nothing is said). As one long row they are
  right.
"""

import importlib.util
from functools import cache
from importlib.metadata import version
from types import MethodType
from typing import Any

import torch
from packaging.version import Version
from peft.utils.integrations import dequantize_module_weight
from torch import nn
from torch.nn import functional
from transformers import BitsAndBytesConfig, PreTrainedModel

from rankwise.errors import ModelError
from rankwise.models.progress_bar import no_progress_bar
from rankwise.study.config import FOUR_BIT, BaseSettings

QUANTIZED = ("int8", *FOUR_BIT)
MIN_VERSION = "0.50"
"""The first bitsandbytes whose 8-bit and 4-bit layers were held against PEFT on a processor."""


def quantization_config(resolved: BaseSettings, device: torch.device) -> BitsAndBytesConfig | None:
    """What `from_pretrained` takes; None for a base that is not quantized.

    Args:
        resolved: Without `auto`.
        device: Where the model is going to be.

    Raises:
        ModelError: bitsandbytes is not installed, too old, or has no such quantization for this device.
    """
    form = resolved.quantization
    if form == "none":
        return None
    _check_installed(form)
    _check_device(form, device)
    if form == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=form,
        bnb_4bit_use_double_quant=resolved.double_quantization,
        bnb_4bit_compute_dtype=getattr(torch, resolved.compute_dtype),
    )


def quantize_model(model: PreTrainedModel, resolved: BaseSettings, device: torch.device) -> PreTrainedModel:
    """A model like `model` with its weights stored as `resolved` says; the same one where they are not quantized.

    Raises:
        ModelError: as `quantization_config`.
    """
    wanted = quantization_config(resolved, device)
    if wanted is None:
        return model
    with no_progress_bar():
        found: PreTrainedModel = type(model).from_pretrained(
            None,
            config=model.config,
            state_dict=model.state_dict(),
            dtype=model.dtype,
            quantization_config=wanted,
            device_map={"": device},
        )
    make_shareable(found)
    return found.requires_grad_(False).eval()


def working_forms(device: torch.device) -> tuple[str, ...]:
    """The quantizations that can be used on `device`."""
    found = []
    for form in QUANTIZED:
        try:
            _check_installed(form)
            _check_device(form, device)
        except ModelError:
            continue
        found.append(form)
    return tuple(found)


def make_shareable(model: nn.Module) -> None:
    """Keep quantized layers from doing what the head of this file says."""
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
            if _has_broken_rows(module):
                module.forward = MethodType(_multiply_4bit, module)
        elif isinstance(module, Linear8bitLt):
            if module.weight.CB is not None:
                module.init_8bit_state()
            module.forward = MethodType(_multiply, module)


def whole_weight(module: nn.Module) -> torch.Tensor:
    """The weight of a layer as numbers, in the layer's own orientation: as it is, or dequantized.

    Raises what PEFT's own function raises for a weight that it cannot read.
    """
    return _weight_4bit(module, torch.float32) if _has_broken_rows(module) else dequantize_module_weight(module)


def requantize(settings: BaseSettings, weight_FD: torch.Tensor) -> torch.Tensor:
    """A whole weight (out, in) there and back: what a base quantized so holds in its place, in float32."""
    from bitsandbytes import functional as bits

    if settings.quantization == "int8":
        codes, largest, _ = bits.int8_vectorwise_quant(weight_FD.half())
        return codes.float() * (largest[:, None] * (1 / 127))
    packed, state = bits.quantize_4bit(
        weight_FD.contiguous(), quant_type=settings.quantization, compress_statistics=settings.double_quantization
    )
    return _dequantize_4bit(packed, state, torch.float32)


class _DequantizedProduct(torch.autograd.Function):
    """x · Wᵀ with W dequantized for the moment; nothing is kept for the backward pass, which does so again."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: Any) -> torch.Tensor:
        ctx.layer = layer
        return functional.linear(x, _weight(layer, x.dtype), None if layer.bias is None else layer.bias.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        (grad,) = grads
        return grad @ _weight(ctx.layer, grad.dtype), None


def _multiply(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """The forward pass of an 8-bit layer."""
    product: torch.Tensor = _DequantizedProduct.apply(x, layer)
    return product


def _multiply_4bit(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """The forward pass of a 4-bit layer whose rows end within blocks."""
    product: torch.Tensor = _DequantizedProduct.apply(x.to(layer.compute_dtype), layer)
    return product.to(x.dtype)


def _weight(layer: Any, dtype: torch.dtype) -> torch.Tensor:
    """The weight as numbers (out, in); of an 8-bit layer 127 stands for the largest of its row."""
    if hasattr(layer.weight, "quant_state"):
        return _weight_4bit(layer, dtype)
    return layer.state.CB.to(dtype).mul_(layer.state.SCB.unsqueeze(1) * (1 / 127))


def _weight_4bit(layer: Any, dtype: torch.dtype) -> torch.Tensor:
    return _dequantize_4bit(layer.weight.data, layer.weight.quant_state, dtype)


def _dequantize_4bit(packed: torch.Tensor, state: Any, dtype: torch.dtype) -> torch.Tensor:
    """A 4-bit weight as numbers, dequantized as one row."""
    from bitsandbytes import functional as bits

    scales = bits.dequantize_blockwise(state.absmax, state.state2) + state.offset if state.nested else state.absmax
    flat: torch.Tensor = torch.ops.bitsandbytes.dequantize_4bit(
        packed, scales.float(), state.blocksize, state.quant_type, (1, state.shape.numel()), dtype
    )
    return flat.view(state.shape)


def _has_broken_rows(module: Any) -> bool:
    """Whether a processor holds the module's weight in blocks that go over the end of a row."""
    state = getattr(getattr(module, "weight", None), "quant_state", None)
    return state is not None and module.weight.device.type == "cpu" and bool(state.shape[-1] % state.blocksize)


def _check_installed(form: str) -> None:
    missing = [name for name in ("bitsandbytes", "accelerate") if importlib.util.find_spec(name) is None]
    if missing:
        raise ModelError(
            f"base.quantization: {form} needs {' and '.join(missing)}, which is not installed. Install the extra with "
            "`pip install 'rankwise[quant]'`, or set base.quantization: none."
        )
    if Version(version("bitsandbytes")) < Version(MIN_VERSION):
        raise ModelError(
            f"base.quantization: {form} needs bitsandbytes {MIN_VERSION} or later, and {version('bitsandbytes')} is "
            "installed. Get a newer one with `pip install -U 'rankwise[quant]'`, or set base.quantization: none."
        )


@cache
def _check_device(form: str, device: torch.device) -> None:
    """A small matrix there and back: builds of bitsandbytes differ in what they can do on which device."""
    try:
        from bitsandbytes import functional as bits

        weight = torch.linspace(-1, 1, 64 * 64, device=device).view(64, 64)
        if form in FOUR_BIT:
            bits.dequantize_4bit(*bits.quantize_4bit(weight, quant_type=form))
        else:
            bits.int8_vectorwise_quant(weight.half())
    except (RuntimeError, ValueError, ImportError, OSError, AttributeError, TypeError) as error:
        raise ModelError(
            f"base.quantization: this build of bitsandbytes ({version('bitsandbytes')}) cannot hold weights as {form} "
            f"on {device} ({type(error).__name__}: {' '.join(str(error).split())[:300]}). `rankwise doctor` says which "
            "forms work here; set base.quantization to one of them or to none, or install a build for this device."
        ) from error
