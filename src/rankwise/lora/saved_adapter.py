"""A saved LoRA adapter as plain values: per layer two matrices and a scale. What is not plain LoRA is refused by cause.

D = inputs of a layer, F = outputs, r = its rank. A plain LoRA layer computes W x + scale · up · down · x and nothing
else (Hu et al., arXiv:2106.09685, equation 3), so these values are all that any other format needs.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rankwise.allocation.peft_patterns import compile_pattern
from rankwise.errors import AdapterError
from rankwise.lora.peft_folder import CONFIG_NAME, read_peft_config, read_peft_folder

NOT_PLAIN = {
    "use_dora": "DoRA also trains the length of every output's weights",
    "modules_to_save": "whole modules were trained beside the adapter",
    "lora_bias": "the adapter has biases of its own",
    "trainable_token_indices": "embeddings of single tokens were trained",
    "layer_replication": "it repeats layers of the base",
    "target_parameters": "it adapts parameters that are no linear layer's",
    "alora_invocation_tokens": "activated LoRA acts on a part of the text only",
    "use_qalora": "QALoRA averages the inputs in groups first",
    "use_bdlora": "its matrices are block-diagonal",
    "arrow_config": "it routes between several adapters",
    "megatron_config": "its layers are Megatron's",
}
"""Settings of `peft.LoraConfig` under which a layer is more than two matrices and a scale, and why."""

CHANGES_THE_BASE = ("pissa", "olora", "corda", "loftq")
"""Beginnings of the `init_lora_weights` under which PEFT changes the base's weights while it loads the adapter."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SavedLayer:
    """One adapted layer."""

    name: str
    """Full module name in the base model."""
    down_rD: np.ndarray
    """float32."""
    up_Fr: np.ndarray
    """float32."""
    scale: float
    """Factor of the product, as PEFT resolves it."""

    @property
    def rank(self) -> int:
        return int(self.down_rD.shape[0])


@dataclass(frozen=True, kw_only=True)
class SavedAdapter:
    """All layers of an adapter folder, in the order of its file."""

    folder: Path
    config: dict[str, Any]
    """`adapter_config.json` as it is."""
    layers: tuple[SavedLayer, ...]

    @property
    def largest_rank(self) -> int:
        return max(layer.rank for layer in self.layers)

    @property
    def scales(self) -> dict[str, float]:
        return {layer.name: layer.scale for layer in self.layers}


def read_adapter(folder: Path) -> SavedAdapter:
    """Read a folder that PEFT or `rankwise train` wrote.

    Raises:
        AdapterError: it is no adapter folder, holds pickled or damaged weights, is more than plain LoRA, or its ranks,
            scales or weights are no usable numbers.
    """
    config = read_peft_config(folder)
    _refuse_more_than_plain(folder, config)
    _, tensors = read_peft_folder(folder)
    layers = []
    for name, (down, up) in tensors.items():
        rank, scale = resolve_scale(folder, config, name)
        if rank != down.shape[0]:
            raise AdapterError(
                f"{folder}: {name} has rank {rank} by {CONFIG_NAME}, but its weights have rank {down.shape[0]}. The "
                "two files belong to different adapters, one was edited, or PEFT sorted overlapping patterns when it "
                "saved them, so that another one comes first now. Write the ranks of the weights into rank_pattern."
            )
        for matrix, values in (("lora_A", down), ("lora_B", up)):
            if not np.isfinite(values).all():
                raise AdapterError(
                    f"{folder}: {matrix} of {name} holds NaN or infinity, so every output would. The training that "
                    "made it diverged; export an earlier checkpoint."
                )
        layers.append(SavedLayer(name=name, down_rD=down, up_Fr=up, scale=scale))
    return SavedAdapter(folder=folder, config=config, layers=tuple(layers))


def resolve_scale(folder: Path, config: Mapping[str, Any], name: str) -> tuple[int, float]:
    """Rank and scale of one layer by PEFT's rules.

    The first key, in the order of the file, for which `(.*\\.)?(KEY)$` matches the layer's name decides, for
    `rank_pattern` and `alpha_pattern` each; where none does, `r` and `lora_alpha`. The scale is alpha / r, or alpha /
    sqrt(r) under `use_rslora` (`LoraModel._create_and_replace` and `get_pattern_key` of peft 0.18 and later).

    Raises:
        AdapterError: a rank is not a positive whole number, an alpha not a finite one other than 0, or a pattern is
            not a regular expression.
    """
    rank = _match(folder, config, "rank_pattern", name, config.get("r"))
    alpha = _match(folder, config, "alpha_pattern", name, config.get("lora_alpha"))
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise AdapterError(
            f"{folder}: {CONFIG_NAME} gives {name} the rank {rank!r}. A rank is a whole number from 1; PEFT cannot "
            "load a layer without components, so leave such layers out of target_modules."
        )
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not math.isfinite(alpha) or alpha == 0:
        raise AdapterError(
            f"{folder}: {CONFIG_NAME} gives {name} the alpha {alpha!r}. An alpha is a finite number other than 0, with "
            "which the layer would do nothing."
        )
    return rank, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _match(folder: Path, config: Mapping[str, Any], field: str, name: str, default: object) -> object:
    patterns = config.get(field) or {}
    if not isinstance(patterns, dict):
        raise AdapterError(f"{folder}: {field} in {CONFIG_NAME} is {patterns!r}, not names with numbers.")
    for key, value in patterns.items():
        try:
            found = compile_pattern(key).match(name)
        except re.error as error:
            raise AdapterError(
                f"{folder}: the key {key!r} of {field} in {CONFIG_NAME} is not a regular expression ({error})."
            ) from error
        if found:
            return value
    return default


def _refuse_more_than_plain(folder: Path, config: Mapping[str, Any]) -> None:
    found = [f"{field}: {why}" for field, why in NOT_PLAIN.items() if config.get(field)]
    if config.get("bias", "none") != "none":
        found.append(f"bias is {config['bias']!r}: biases of the base were trained")
    if found:
        raise AdapterError(
            f"{folder} is more than plain LoRA ({'; '.join(found)}). Two matrices and a scale per layer cannot "
            "represent that, and leaving it out would give another model. Use it with PEFT itself."
        )
    init = config.get("init_lora_weights")
    if isinstance(init, str) and init.lower().startswith(CHANGES_THE_BASE):
        raise AdapterError(
            f"{folder}: init_lora_weights is {init!r}, with which PEFT changes the base's weights while it loads the "
            "adapter, so the matrices alone do not say what the model computes. Convert it to plain LoRA first: "
            "`save_pretrained(..., path_initial_model_for_weight_conversion=...)` in PEFT."
        )
