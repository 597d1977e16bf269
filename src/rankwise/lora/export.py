"""An adapter in the forms that other tools take: PEFT with patterns, one baked rank, or merged into the base.

D = inputs of a layer, F = outputs, r = its rank, R = the one rank of a baked adapter.

Runtimes disagree about everything in an adapter but its two matrices: most know one rank and one scale for all layers
(docs/export.md). Baking leaves them nothing to disagree about: each scale is multiplied into `up`, each pair is padded
with zero components to R, and lora_alpha = r = R, so that alpha / r is 1 under every rule but rsLoRA's, which is off.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from rankwise.allocation.peft_patterns import layer_patterns
from rankwise.errors import AdapterError
from rankwise.lora.peft_folder import write_weights
from rankwise.lora.runtimes import is_tied
from rankwise.lora.saved_adapter import SavedLayer


def bake(layers: Sequence[SavedLayer], rank: int) -> tuple[SavedLayer, ...]:
    """The same layers at one rank and scale 1.

    Args:
        layers: Of any ranks and scales.
        rank: R, at least the largest rank among them.
    """
    return tuple(_bake_layer(layer, rank) for layer in layers)


def _bake_layer(layer: SavedLayer, rank: int) -> SavedLayer:
    missing = rank - layer.rank
    assert missing >= 0
    return replace(
        layer,
        down_rD=np.pad(layer.down_rD, ((0, missing), (0, 0))),
        # The factor rounds once, in double precision.
        up_Fr=np.pad((layer.up_Fr.astype(np.float64) * layer.scale).astype(np.float32), ((0, 0), (0, missing))),
        scale=1.0,
    )


def write_adapter(
    folder: Path, layers: Sequence[SavedLayer], model: nn.Module, *, base_name: str, revision: str | None = None
) -> None:
    """Write `layers` as a PEFT folder, in float32 and without the settings of any training.

    Where all layers have one rank and one scale there are no patterns; else each layer has its own, under its escaped
    and anchored full name.

    Args:
        folder: Exists and is empty.
        layers: At least one.
        model: The base they belong to, bare; decides how short the names in `target_modules` can be.
        base_name: For `base_model_name_or_path`.
        revision: Of the base, where it is on the hub.

    Raises:
        OSError: it cannot be written.
    """
    names = [layer.name for layer in layers]
    config = LoraConfig(
        task_type="CAUSAL_LM",
        base_model_name_or_path=base_name,
        revision=revision,
        inference_mode=True,
        target_modules=shortest_targets(model, names),
        fan_in_fan_out=all(isinstance(model.get_submodule(name), Conv1D) for name in names),
        **_ranks_and_alphas(layers),
    )
    config.save_pretrained(folder)
    write_weights(folder, {layer.name: (layer.down_rD, layer.up_Fr) for layer in layers})


def _ranks_and_alphas(layers: Sequence[SavedLayer]) -> dict[str, Any]:
    widest = max(layers, key=lambda layer: layer.rank)
    shared = {"r": widest.rank, "lora_alpha": _whole(widest.scale * widest.rank)}
    if all((layer.rank, layer.scale) == (widest.rank, widest.scale) for layer in layers):
        return shared
    return shared | {
        "rank_pattern": layer_patterns({layer.name: layer.rank for layer in layers}),
        "alpha_pattern": layer_patterns({layer.name: _whole(layer.scale * layer.rank) for layer in layers}),
    }


def _whole(alpha: float) -> float:
    """16.0 as 16, which is how PEFT itself writes it."""
    return int(alpha) if math.isfinite(alpha) and alpha == int(alpha) else alpha


def shortest_targets(model: nn.Module, names: Collection[str]) -> list[str]:
    """The last parts of `names`, such as `q_proj`, where these name exactly the same modules; else `names`.

    Last parts are what every runtime expects to find. They say the same only where no other module ends in one of
    them: not for a layer of rank 0 in one block, or a second tower with the same names.
    """
    leaves = {name.rpartition(".")[2] for name in names}
    meant = {name for name, _ in model.named_modules() if name.rpartition(".")[2] in leaves}
    return sorted(leaves) if meant == set(names) else list(names)


def merge(model: PreTrainedModel, layers: Sequence[SavedLayer], dtype: torch.dtype) -> float:
    """Add each layer's product to the base's weights, in place, and round all weights to `dtype`.

    A head that shares the input embeddings' weights gets its own first, so that the embeddings stay as they are.

    Args:
        model: Bare, in float32. Afterwards its parameters have `dtype`.
        layers: All of them layers of the model.
        dtype: Number format of the merged weights.

    Returns:
        Rounding error of the adapted weights relative to the update, both as Frobenius norms over all layers: 0 in
        float32, and 1 where rounding does as much as training did.
    """
    update_sq = lost_sq = 0.0
    for layer in layers:
        module = model.get_submodule(layer.name)
        if module is model.get_output_embeddings() and is_tied(model):
            module.weight = nn.Parameter(module.weight.detach().clone(), requires_grad=False)
            model.config.tie_word_embeddings = False
        update = torch.from_numpy(layer.up_Fr @ (layer.scale * layer.down_rD)).to(module.weight)
        merged = module.weight.data + (update.T if isinstance(module, Conv1D) else update)
        update_sq += float(update.double().square().sum())
        lost_sq += float((merged.to(dtype).double() - merged.double()).square().sum())
        module.weight.data = merged
    for parameter in model.parameters():  # buffers, such as rotary frequencies, stay as exact as they are
        parameter.data = parameter.data.to(dtype)
    return math.sqrt(lost_sq / update_sq) if update_sq else 0.0


def check_layers(model: nn.Module, layers: Sequence[SavedLayer], folder: Path) -> None:
    """Refuse layers of the model that cannot be merged: their base weights are no plain matrix.

    Raises:
        AdapterError: naming the first such layer.
    """
    for layer in layers:
        module = model.get_submodule(layer.name)
        if not isinstance(module, (nn.Linear, Conv1D)) or not module.weight.is_floating_point():
            raise AdapterError(
                f"{folder}: {layer.name} is of class {type(module).__name__}, whose weights are no matrix of numbers "
                "that an update could be added to. Export with --to peft or --to baked."
            )
