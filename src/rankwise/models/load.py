"""Load a frozen base model: from the embedded asset, a folder or the hub; safetensors only."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rankwise.errors import ModelError
from rankwise.models.dtype import default_device, resolve_settings
from rankwise.models.fingerprint import fingerprint_folder
from rankwise.models.progress_bar import no_progress_bar
from rankwise.models.quantization import make_shareable, quantization_config
from rankwise.models.source import locate_base
from rankwise.models.tokenizer import read_tokenizer
from rankwise.study.config import BaseSettings

LOAD_ERRORS = (OSError, ValueError, RuntimeError, ImportError, LookupError, TypeError, AttributeError, SafetensorError)
"""What Transformers raises for a folder it cannot make a model of."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedBase:
    """A base model ready to be adapted, and all that identifies it."""

    model: PreTrainedModel = field(repr=False)
    """In evaluation mode, so its own dropout is off; no parameter requires a gradient."""
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    settings: BaseSettings
    """As given, with what was `auto` resolved."""
    device: torch.device
    fingerprint: str
    """See `fingerprint_base`."""
    num_params: int
    """Of the unquantized model; tied weights count once."""


def load_base(settings: BaseSettings, device: torch.device | None = None) -> LoadedBase:
    """Load a causal language model with its tokenizer.

    Args:
        settings: Which model, and how its weights are held.
        device: None for the first CUDA device where there is one, else the processor.

    Raises:
        ModelError: It cannot be found, downloaded or read; it is incomplete, is not a causal language model, holds
            only pickled weights, or asks for a quantization that this machine does not have.
    """
    device = device or default_device()
    resolved = resolve_settings(settings, device)
    quantization = quantization_config(resolved, device)
    folder = locate_base(resolved, "config", "tokenizer", "weights")
    tokenizer = read_tokenizer(folder, resolved.trust_remote_code)
    model = _read_model(folder, resolved, device, quantization)
    _check_vocabulary(folder, model, tokenizer)
    return LoadedBase(
        model=_freeze(model),
        tokenizer=tokenizer,
        settings=resolved,
        device=device,
        fingerprint=fingerprint_folder(folder, resolved),
        num_params=model.num_parameters(),
    )


def load_skeleton(settings: BaseSettings) -> PreTrainedModel:
    """The model on the meta device: every module and shape, no weights, made from config.json alone.

    Quantization does not show: sites and shapes are those of the unquantized model.

    Raises:
        ModelError: The configuration cannot be found, downloaded or read.
    """
    resolved = resolve_settings(settings, default_device())
    folder = locate_base(resolved, "config")
    config = _read_config(folder, resolved)
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                config,
                dtype=getattr(torch, resolved.dtype),
                attn_implementation=resolved.attention,
                trust_remote_code=resolved.trust_remote_code,
            )
    except LOAD_ERRORS as error:
        raise _unloadable(folder, error) from error
    return _freeze(model)


def _read_config(folder: Path, resolved: BaseSettings) -> PreTrainedConfig:
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=resolved.trust_remote_code)
    except LOAD_ERRORS as error:
        raise _unloadable(folder, error) from error


def _read_model(
    folder: Path, resolved: BaseSettings, device: torch.device, quantization: BitsAndBytesConfig | None
) -> PreTrainedModel:
    placing: dict[str, Any] = {"quantization_config": quantization, "device_map": {"": device}} if quantization else {}
    try:
        with no_progress_bar():
            model, report = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=getattr(torch, resolved.dtype),
                attn_implementation=resolved.attention,
                use_safetensors=True,
                trust_remote_code=resolved.trust_remote_code,
                output_loading_info=True,
                **placing,
            )
    except LOAD_ERRORS as error:
        raise _unloadable(folder, error) from error
    _check_complete(folder, sorted(report["missing_keys"]))
    if quantization is None:
        return model.to(device)
    make_shareable(model)
    _own_whole_weights(model)
    return model


def _own_whole_weights(model: PreTrainedModel) -> None:
    """Copy what is not quantized out of the mapped weight file, so that the process lets go of the whole file.

    Reading it to quantize it has brought every page of it into memory, and one tensor left inside keeps them there.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            tensor.data = tensor.data.clone()


def _check_complete(folder: Path, missing: list[str]) -> None:
    """Transformers fills missing weights with random numbers and goes on; here that is an error."""
    if missing:
        raise ModelError(
            f"base.model: the weight files in {folder} lack {len(missing)} of the model's tensors, first "
            f"{missing[0]}. They belong to another configuration or were cut short: copy or download them again."
        )


def _check_vocabulary(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    rows = model.get_input_embeddings().weight.shape[0]
    # Tokens added on top are not counted: some published models (Gemma 3) never feed theirs to the text model.
    if tokenizer.vocab_size > rows:
        raise ModelError(
            f"base.model: the tokenizer in {folder} has {tokenizer.vocab_size:,} tokens, but the model embeds only "
            f"{rows:,}. Save the tokenizer that the model was trained with into the folder."
        )


def _freeze(model: PreTrainedModel) -> PreTrainedModel:
    model.requires_grad_(False)
    return model.eval()


def _unloadable(folder: Path, error: Exception) -> ModelError:
    return ModelError(
        f"base.model: Transformers cannot make a causal language model of {folder} ({type(error).__name__}: "
        f"{' '.join(str(error).split())[:600]}). Check that it is one and that its files are whole; a model that comes "
        "with Python code of its own needs base.trust_remote_code: true."
    )
