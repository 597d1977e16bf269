"""Adapters as PEFT folders: what other tools load.

Layout of `peft` 0.18 and later: `adapter_config.json` and `adapter_model.safetensors`, tensors named
`base_model.model.<site>.lora_A.weight` (rank, in) and `...lora_B.weight` (out, rank).
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save
from safetensors.torch import load_file

from rankwise.allocation.rank_map import RankMap
from rankwise.errors import AdapterError

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
PREFIX = "base_model.model."
DOWN = ".lora_A.weight"
UP = ".lora_B.weight"

Tensors = dict[str, tuple[np.ndarray, np.ndarray]]
"""Per site name `down` (rank, in) and `up` (out, rank)."""


def write_peft_folder(
    folder: Path, rank_map: RankMap, tensors: Tensors, *, base_name: str, dropout: float = 0.0
) -> None:
    """Write an adapter that `PeftModel.from_pretrained` loads. The folder appears whole or not at all.

    An adapter or an empty folder that is there already is replaced.

    Raises:
        AdapterError: the tensors' ranks are not those of the rank map, the folder holds something else than an
            adapter, or it cannot be written.
    """
    _check_ranks(rank_map, tensors)
    check_replaceable(folder)
    config = rank_map.to_peft()
    config.base_model_name_or_path = base_name
    config.lora_dropout = dropout
    config.inference_mode = True
    partial = folder.with_name(folder.name + ".partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        config.save_pretrained(partial)
        write_weights(partial, tensors)
        replace_folder(partial, folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise AdapterError(
            f"The adapter folder {folder} cannot be written: {error.strerror or error}. Nothing was left there; free "
            "space or give another folder with --out."
        ) from error


def write_weights(folder: Path, tensors: Tensors) -> None:
    """Write the matrices of an adapter as PEFT names them. Raises OSError where that cannot be done."""
    flat = {}
    for name, (down, up) in tensors.items():
        flat[f"{PREFIX}{name}{DOWN}"] = np.ascontiguousarray(down)
        flat[f"{PREFIX}{name}{UP}"] = np.ascontiguousarray(up)
    (folder / WEIGHTS_NAME).write_bytes(save(flat, metadata={"format": "pt"}))


def check_replaceable(folder: Path) -> None:
    """Refuse to write an adapter over anything but an adapter or an empty folder.

    Raises:
        AdapterError: the folder holds something else, or is a file.
    """
    if not folder.exists() or (folder / CONFIG_NAME).is_file():
        return
    if not folder.is_dir() or any(folder.iterdir()):
        what = "holds other files than an adapter's" if folder.is_dir() else "is a file"
        raise AdapterError(f"{folder} {what}, which an adapter would replace. Give a new folder with --out.")


def replace_folder(source: Path, target: Path) -> None:
    """Flush the files in `source` to the disk and rename it to `target`, whose old content is gone then."""
    for path in source.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    shutil.rmtree(target, ignore_errors=True)
    source.replace(target)


def read_peft_config(folder: Path) -> dict[str, Any]:
    """The configuration of an adapter folder.

    Raises:
        AdapterError: not an adapter folder, or one of another kind than LoRA.
    """
    if not (folder / CONFIG_NAME).is_file():
        raise AdapterError(
            f"{folder} is not an adapter folder: it has no {CONFIG_NAME}. Give a folder that PEFT wrote."
        )
    try:
        config = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(folder, error) from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = f" (peft_type {config['peft_type']!r})" if isinstance(config, dict) and "peft_type" in config else ""
        raise AdapterError(f"{folder}: {CONFIG_NAME} does not describe a LoRA adapter{kind}; no other kind is read.")
    return config


def read_peft_folder(folder: Path) -> tuple[dict[str, Any], Tensors]:
    """The configuration and tensors (as float32) of an adapter folder. Only safetensors are read.

    Raises:
        AdapterError: not an adapter folder, pickled weights, or tensors that are not plain LoRA.
    """
    config = read_peft_config(folder)
    if not (folder / WEIGHTS_NAME).is_file():
        raise AdapterError(
            f"{folder} has no {WEIGHTS_NAME}. Pickled weights (adapter_model.bin) can run code when loaded and are "
            "refused; load and save the adapter once with a current PEFT to convert it."
        )
    try:
        # Through torch, because numpy has no bfloat16.
        flat = {key: tensor.float().numpy() for key, tensor in load_file(folder / WEIGHTS_NAME).items()}
    except (OSError, ValueError, SafetensorError) as error:
        raise _damaged(folder, error) from error
    return config, _pair(folder, flat)


def _damaged(folder: Path, error: Exception) -> AdapterError:
    return AdapterError(
        f"{folder} cannot be read as an adapter: {error}. Its files are damaged or cut short; copy or download them "
        "again."
    )


def _pair(folder: Path, flat: dict[str, np.ndarray]) -> Tensors:
    names = dict.fromkeys(key.removesuffix(DOWN).removesuffix(UP) for key in flat)
    if names.keys() & flat.keys() or not names:
        found = ", ".join(sorted(names.keys() & flat.keys())[:3]) or "no tensor at all"
        raise AdapterError(
            f"{folder} holds more or other tensors than the two LoRA matrices of each layer (found {found}). Only "
            "plain LoRA adapters are read: no DoRA, no trained embeddings, biases or whole modules. Where the output "
            "head is adapted, PEFT adds copies of embeddings by itself; save with `save_embedding_layers=False`."
        )
    tensors: Tensors = {}
    for name in names:
        down, up = flat.get(name + DOWN), flat.get(name + UP)
        if down is None or up is None or down.ndim != 2 or up.ndim != 2 or up.shape[1] != down.shape[0]:
            shapes = [None if matrix is None else matrix.shape for matrix in (down, up)]
            raise AdapterError(
                f"{folder}: {name} has lora_A {shapes[0]} and lora_B {shapes[1]}, which do not belong together; the "
                "adapter is incomplete. Copy or download it again."
            )
        tensors[name.removeprefix(PREFIX)] = (down, up)
    return tensors


def _check_ranks(rank_map: RankMap, tensors: Tensors) -> None:
    planned = {site.name: rank for site, rank in zip(rank_map.sites, rank_map.ranks, strict=True) if rank}
    found = {name: down.shape[0] for name, (down, _) in tensors.items()}
    if planned != found:
        raise AdapterError(f"The adapter's ranks {found} are not those of its rank map {planned}; it is not written.")
