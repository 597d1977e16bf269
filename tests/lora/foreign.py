"""Adapters as PEFT itself makes them, with random weights, for tests of what is read from others."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel

CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {"r": 3, "lora_alpha": 12},
    "rslora": {"r": 4, "lora_alpha": 6, "use_rslora": True},
    "patterns": {
        "r": 3,
        "rank_pattern": {"layers.1.mlp.up_proj": 2, "up_proj": 5},
        "alpha_pattern": {"layers.1.mlp.up_proj": 40},
    },
    "regular expression": {"r": 2, "rank_pattern": {r".*\.0\..*_proj": 4}, "target_modules": r".*\.(q|up|gate)_proj"},
    "some layers": {"r": 2, "layers_to_transform": [1], "layers_pattern": "layers"},
    "gaussian": {"r": 2, "init_lora_weights": "gaussian"},
}
"""Ways in which PEFT lets ranks and scales be said, for a Llama."""


def write_foreign(folder: Path, model: PreTrainedModel, **config: Any) -> Path:
    """What `PeftModel.save_pretrained` writes for `config`."""
    made = LoraConfig(**{"target_modules": ["q_proj", "up_proj"], "task_type": "CAUSAL_LM", **config})
    adapted = get_peft_model(model, made)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    adapted.save_pretrained(folder, save_embedding_layers=False)
    return folder
