"""Which device, number format and attention kernel a base model runs with. `auto` is decided here and nowhere else."""

import torch

from rankwise.study.config import FOUR_BIT, BaseSettings


def default_device() -> torch.device:
    """The first CUDA device where there is one, else the processor."""
    return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")


def multiplies_bfloat16_fast(device: torch.device) -> bool:
    """Whether the device has matrix units for bfloat16, and not only an emulation of them.

    A processor needs a oneDNN that accepts bfloat16 and AMX tiles. With AVX512-BF16 alone the products were measured at
    0.55 of float32's speed (Xeon without AMX), with neither at a seventieth (docs/log.md).
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return bool(torch.cpu._is_amx_tile_supported()) and _onednn_accepts_bfloat16()
    return False


def _onednn_accepts_bfloat16() -> bool:
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def resolve_settings(settings: BaseSettings, device: torch.device) -> BaseSettings:
    """The same settings without `auto` (in 4-bit settings alone: `compute_dtype` means nothing elsewhere).

    dtype: bfloat16 where the device multiplies it fast, else float32. attention: `eager` (plain matrix products) on a
    processor, where the backward pass of the fused kernel was measured up to 3.5 times slower and never faster;
    `sdpa` elsewhere.
    """
    update: dict[str, str] = {}
    if settings.dtype == "auto":
        update["dtype"] = "bfloat16" if multiplies_bfloat16_fast(device) else "float32"
    if settings.attention == "auto":
        update["attention"] = "eager" if device.type == "cpu" else "sdpa"
    if settings.quantization in FOUR_BIT and settings.compute_dtype == "auto":
        update["compute_dtype"] = update.get("dtype", settings.dtype)
    return settings.model_copy(update=update)
