"""A saved adapter onto its base model, or a sentence that says why it does not fit."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from rankwise.errors import AdapterError
from rankwise.lora.peft_folder import PREFIX, Tensors, read_peft_folder

ADAPTER = "default"


def attach_peft_adapter(model: PreTrainedModel, folder: Path) -> None:
    """Put a PEFT folder's adapter onto `model`, in place and in the number format of its layers.

    PEFT reads it, with its rank and alpha patterns and its scaling rule; then every matrix is read back from the model
    and compared with the file, because PEFT goes on where a pattern or a tensor matched nothing.

    Raises:
        AdapterError: the folder is no plain LoRA adapter, or does not fit the model (which is then of no use).
    """
    _, tensors = read_peft_folder(folder)
    missing = [name for name in tensors if not _has_module(model, name)]
    if missing:
        raise _mismatch(folder, model, f"the model has no layer {missing[0]}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what PEFT would only warn about is an error below
            adapted = PeftModel.from_pretrained(model, folder, autocast_adapter_dtype=False)
    except (ValueError, TypeError, RuntimeError, LookupError, AttributeError, OSError) as error:
        raise _mismatch(folder, model, " ".join(str(error).split())[:400]) from error
    adapted.eval()
    _compare(folder, model, tensors)


def detach_peft_adapter(model: PreTrainedModel) -> None:
    """Take an attached adapter off again, so that the model is the bare base. Its weights were never touched."""
    for name, module in list(model.named_modules()):
        if ADAPTER in getattr(module, "lora_A", {}):
            model.set_submodule(name, module.get_base_layer())
    del model.peft_config  # else PEFT would take the next adapter for a second one beside this


@contextmanager
def peft_adapter_off(model: PreTrainedModel) -> Iterator[None]:
    """Within, the attached adapter does nothing: the model is the bare base."""
    layers = [module for module in model.modules() if ADAPTER in getattr(module, "lora_A", {})]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
            layer.requires_grad_(False)  # PEFT takes what is switched on for what is to be trained


def attached_scales(model: PreTrainedModel) -> dict[str, float]:
    """Per attached layer the factor with which PEFT adds its product."""
    return {
        name: module.scaling[ADAPTER]
        for name, module in model.named_modules()
        if ADAPTER in getattr(module, "lora_A", {})
    }


def _has_module(model: PreTrainedModel, name: str) -> bool:
    try:
        model.get_submodule(name)
    except AttributeError:
        return False
    return True


def _compare(folder: Path, model: PreTrainedModel, tensors: Tensors) -> None:
    attached = {name: module for name, module in model.named_modules() if ADAPTER in getattr(module, "lora_A", {})}
    unmatched = sorted(attached.keys() ^ tensors.keys())
    if unmatched:
        where = "its configuration" if unmatched[0] in attached else "its weights"
        raise _mismatch(folder, model, f"{unmatched[0]} is adapted only in {where}")
    for name, pair in tensors.items():
        held = (attached[name].lora_A[ADAPTER].weight, attached[name].lora_B[ADAPTER].weight)
        for weight, expected in zip(held, pair, strict=True):
            if not _equal(weight, expected):
                raise _mismatch(folder, model, f"{name} does not hold what {PREFIX}{name} of the file says")


def _equal(weight: torch.Tensor, expected: np.ndarray) -> bool:
    return torch.equal(weight.cpu(), torch.from_numpy(expected).to(weight.dtype))


def _mismatch(folder: Path, model: PreTrainedModel, reason: str) -> AdapterError:
    return AdapterError(
        f"The adapter {folder} does not fit the base model ({type(model).__name__}, {model.config.num_hidden_layers} "
        f"blocks): {reason}. Give the model that it was trained on with --model."
    )
