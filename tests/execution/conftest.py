"""A base model folder small enough that a whole study takes seconds: nano's tokenizer on a decoder of width 16."""

from importlib import resources
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from rankwise.study import parse_study
from rankwise.study.config import Study

STUDY = """
name: small
hypothesis: A small study runs from end to end.
base: {{model: {folder}, dtype: float32}}
data: {{source: skills, max_tokens: 128, train: 8, validation: 6, test: 6}}
budget: {{rank: 2}}
train: {{epochs: 1, batch_size: 2, learning_rates: [1.0e-3, 1.0e-2], eval_every_frac: 0.5}}
arms: [uniform, linear_decay, {{strategy: empirical, train: {{learning_rates: [3.0e-3]}}}}]
seeds: 2
"""


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small-model")
    tokenizer = AutoTokenizer.from_pretrained(str(resources.files("rankwise") / "assets" / "nano"))
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def small_study(small_model: Path) -> Study:
    """Two tuned arms (2 x 2 tuning runs) and one that is not; 3 x 2 reported runs."""
    return parse_study(STUDY.format(folder=small_model), origin="small.yaml")
