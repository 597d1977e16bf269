"""Adapters as PEFT folders: what other tools load.

Layout of `peft` 0.18 and later: `adapter_config.json` and `adapter_model.safetensors`, tensors named
`base_model.model.<site>.lora_A.weight` (rank, in) and `...lora_B.weight` (out, rank).
"""

import json
import os
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from rankwise.allocation.rank_map import RankMap
from rankwise.errors import AdapterError

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
PREFIX = "base_model.model."

Tensors = dict[str, tuple[np.ndarray, np.ndarray]]
"""Per site name `down` (rank, in) and `up` (out, rank)."""


def write_peft_folder(folder: Path, rank_map: RankMap, tensors: Tensors, *, base_name: str, dropout: float = 0.0) -> None:
    """Write an adapter that `PeftModel.from_pretrained` loads. The folder appears whole or not at all.

    Raises:
        AdapterError: the tensors' ranks are not those of the rank map, or the folder cannot be written.
    """
    _check_ranks(rank_map, tensors)
    config = rank_map.to_peft()
    config.base_model_name_or_path = base_name
    config.lora_dropout = dropout
    config.inference_mode = True
    partial = folder.with_name(folder.name + ".partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        config.save_pretrained(partial)
        flat = {}
        for name, (down, up) in tensors.items():
            flat[f"{PREFIX}{name}.lora_A.weight"] = np.ascontiguousarray(down)
            flat[f"{PREFIX}{name}.lora_B.weight"] = np.ascontiguousarray(up)
        save_file(flat, partial / WEIGHTS_NAME, metadata={"format": "pt"})
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise AdapterError(
            f"The adapter folder {folder} cannot be written: {error.strerror or error}. Nothing was left there; free "
            "space or give another folder with --out."
        ) from error


def read_peft_folder(folder: Path) -> tuple[dict[str, object], Tensors]:
    """The configuration and tensors of an adapter folder. Only safetensors are read.

    Raises:
        AdapterError: not an adapter folder, pickled weights, or tensors that are not plain LoRA.
    """
    if not (folder / CONFIG_NAME).is_file():
        raise AdapterError(f"{folder} is not an adapter folder: it has no {CONFIG_NAME}. Give a folder that PEFT wrote.")
    if not (folder / WEIGHTS_NAME).is_file():
        raise AdapterError(
            f"{folder} has no {WEIGHTS_NAME}. Pickled weights (adapter_model.bin) can run code when loaded and are "
            "refused; load and save the adapter once with a current PEFT to convert it."
        )
    try:
        config = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
        flat = load_file(folder / WEIGHTS_NAME)
    except Exception as error:
        raise AdapterError(f"{folder} cannot be read as an adapter: {error}.") from error
    return config, _pair(folder, flat)


def _pair(folder: Path, flat: dict[str, np.ndarray]) -> Tensors:
    tensors: Tensors = {}
    for key, down in flat.items():
        name, suffix, rest = key.removeprefix(PREFIX).partition(".lora_A")
        if not suffix:
            continue
        up = flat.get(f"{PREFIX}{name}.lora_B{rest}")
        if up is None or down.ndim != 2 or up.shape[1] != down.shape[0]:
            raise AdapterError(f"{folder}: {key} has no matching lora_B; the adapter is incomplete. Download it again.")
        tensors[name] = (down, up)
    if not tensors:
        found = ", ".join(sorted(flat)[:3])
        raise AdapterError(f"{folder} holds no LoRA matrices (found {found}); only plain LoRA adapters are read.")
    return tensors


def _check_ranks(rank_map: RankMap, tensors: Tensors) -> None:
    planned = {site.name: rank for site, rank in zip(rank_map.sites, rank_map.ranks, strict=True) if rank}
    found = {name: down.shape[0] for name, (down, _) in tensors.items()}
    if planned != found:
        raise AdapterError(f"The adapter's ranks {found} are not those of its rank map {planned}; it is not written.")
