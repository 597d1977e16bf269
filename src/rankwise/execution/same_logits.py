"""Whether two forms of an adapter are the same model: their logits on the same random text.

N = sample sequences, T = their tokens, V = logits of a token.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import PreTrainedModel

from rankwise.errors import AdapterError
from rankwise.lora.attach_peft import attach_peft_adapter, attached_scales, detach_peft_adapter
from rankwise.models.context import context_tokens
from rankwise.streams import stream

SAMPLE_SEQUENCES, SAMPLE_TOKENS = 4, 32
"""Random sequences on which logits are compared; shorter where the model's context is."""

TOLERANCE = 1e-5
"""Largest difference of a logit, relative to the largest logit (or to 1, if that is below): float32 rounding."""


def sample_ids(model: PreTrainedModel) -> torch.Tensor:
    """Random token ids (N, T) of the model's vocabulary, the same at every call."""
    num_tokens = min(SAMPLE_TOKENS, context_tokens(model))
    num_ids = model.get_input_embeddings().weight.shape[0]
    ids_NT = stream(0, "export", num_ids).integers(0, num_ids, (SAMPLE_SEQUENCES, num_tokens))
    return torch.from_numpy(ids_NT).to(next(model.parameters()).device)


def adapted_logits(
    model: PreTrainedModel, folder: Path, ids_NT: torch.Tensor, scales: Mapping[str, float]
) -> torch.Tensor:
    """The logits with an adapter, which is taken off again. PEFT's scales must be those that were read."""
    attach_peft_adapter(model, folder)
    attached = attached_scales(model)
    wrong = [name for name, scale in scales.items() if abs(attached[name] - scale) > TOLERANCE * abs(scale)]
    if wrong:
        raise AdapterError(
            f"{folder}: PEFT scales {wrong[0]} by {attached[wrong[0]]:g}, and not by the {scales[wrong[0]]:g} that its "
            "configuration says; this version of PEFT resolves patterns otherwise. Nothing was exported."
        )
    logits_NTV = logits(model, ids_NT)
    detach_peft_adapter(model)
    return logits_NTV


def logits(model: PreTrainedModel, ids_NT: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids_NT, use_cache=False).logits.float()


def largest(values: torch.Tensor) -> float:
    return float(values.abs().max())


def compare(found_NTV: torch.Tensor, expected_NTV: torch.Tensor, folder: Path) -> tuple[float, float]:
    """The largest difference and the one allowed.

    Raises:
        AdapterError: it is larger, or not a number.
    """
    difference = largest(found_NTV - expected_NTV)
    allowed = TOLERANCE * max(1.0, largest(expected_NTV))
    if not difference <= allowed:  # so that NaN fails
        raise unverified(
            folder, f"its logits differ from the original's by up to {difference:.3g} ({allowed:.3g} is rounding)"
        )
    return difference, allowed


def unverified(folder: Path, what: str) -> AdapterError:
    return AdapterError(
        f"The export {folder.name.removesuffix('.partial')} was written and read again, and is not the same model: "
        f"{what}. It was removed. The adapter itself is untouched; please report this."
    )
