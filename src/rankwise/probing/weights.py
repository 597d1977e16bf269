"""The frozen weights themselves, in float32 and in one orientation whatever layer holds them. Needs no data.

D = inputs, F = outputs, L = sites, K = the largest rank that any of the sites can have.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from rankwise.allocation.sites import Site
from rankwise.errors import ModelError
from rankwise.models.quantization import whole_weight


def weight_of(model: nn.Module, site: Site) -> torch.Tensor:
    """The weight of one site: float32 (F, D). 8-bit and 4-bit weights are dequantized.

    Raises:
        ModelError: the weight has no values (a skeleton), or is stored in a form that cannot be read back.
    """
    module = model.get_submodule(site.name)
    try:
        weight = whole_weight(module).detach()
    except (ImportError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise _unreadable(site, module, str(error)) from error
    if isinstance(module, Conv1D):
        weight = weight.T
    if weight.is_meta or not weight.is_floating_point() or weight.shape != (site.out_features, site.in_features):
        raise _unreadable(site, module, f"{tuple(weight.shape)} of {weight.dtype} on {weight.device}")
    return weight.float()


def weight_singular_values(model: PreTrainedModel, sites: Sequence[Site]) -> np.ndarray:
    """All singular values of each site's weight, largest first, zeros behind the last: float64 (L, K).

    One weight is decomposed at a time.
    """
    found = [torch.linalg.svdvals(weight_of(model, site).double()).cpu().numpy() for site in sites]
    return padded(found)


def padded(rows: Sequence[np.ndarray], num_columns: int = 0) -> np.ndarray:
    """Rows of different lengths as one float64 array of at least `num_columns`, filled up with zeros."""
    array = np.zeros((len(rows), max(num_columns, *(len(row) for row in rows))))
    for place, row in zip(array, rows, strict=True):
        place[: len(row)] = row
    return array


def _unreadable(site: Site, module: nn.Module, found: str) -> ModelError:
    return ModelError(
        f"The weight of {site.name} ({type(module).__name__}) cannot be read as numbers: {found}. Strategies that look "
        "at weights need a base in float32, bfloat16 or float16, or one that bitsandbytes quantized and is installed "
        "to read back; use quantization none, or a strategy that does not."
    )
