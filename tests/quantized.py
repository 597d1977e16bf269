"""Tiny models with quantized weights: as the engine holds them, and as plain Transformers and PEFT do."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from rankwise.models.dtype import resolve_settings
from rankwise.models.quantization import make_shareable, quantization_config
from rankwise.study.config import BaseSettings
from tests.tiny import VOCAB

FORMS: dict[str, dict[str, Any]] = {
    "int8": {"quantization": "int8"},
    "nf4": {"quantization": "nf4"},
    "nf4-single": {"quantization": "nf4", "double_quantization": False},
    "fp4": {"quantization": "fp4"},
    "nf4-bfloat16": {"quantization": "nf4", "compute_dtype": "bfloat16"},
}
"""Settings of `base` by a name for the test; nf4-bfloat16 is QLoRA's recipe: float32 beside products in bfloat16."""

SHAPE = {"vocab_size": VOCAB, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64}


def whole_model(name: str) -> PreTrainedModel:
    """The same random weights at every call. Rows of `llama`, `gpt2` and `gpt_neox` are whole blocks of 64, for which
    bitsandbytes is an oracle; those of `odd` end within blocks."""
    torch.manual_seed(0)
    model: PreTrainedModel
    if name == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB, n_embd=64, n_layer=2, n_head=2, n_positions=64))
    elif name == "gpt_neox":
        model = GPTNeoXForCausalLM(GPTNeoXConfig(**SHAPE, hidden_size=64, intermediate_size=128))
    else:
        sizes = (64, 128) if name == "llama" else (24, 80)
        model = LlamaForCausalLM(LlamaConfig(**SHAPE, hidden_size=sizes[0], intermediate_size=sizes[1]))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.1)
    return model.eval().requires_grad_(False)


def stock_model(folder: Path, form: str, name: str = "llama", dtype: str = "float32") -> PreTrainedModel:
    """A tiny model, written into `folder` once and loaded by Transformers with quantized weights."""
    whole = whole_model(name)
    if not (folder / name).is_dir():
        whole.save_pretrained(folder / name)
    cpu = torch.device("cpu")
    settings = resolve_settings(BaseSettings(dtype=dtype, **FORMS.get(form, {})), cpu)
    return type(whole).from_pretrained(
        folder / name,
        dtype=getattr(torch, dtype),
        attn_implementation="eager",
        quantization_config=quantization_config(settings, cpu),
    )


def quantized_model(folder: Path, form: str, name: str = "llama", dtype: str = "float32") -> PreTrainedModel:
    """The same as `load_base` leaves it."""
    model = stock_model(folder, form, name, dtype)
    make_shareable(model)
    return model
