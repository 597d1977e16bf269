"""Tokenizers load without the weights, unchanged."""

import shutil

import pytest

from rankwise.errors import ModelError
from rankwise.models.tokenizer import load_tokenizer
from rankwise.study.config import BaseSettings


def test_the_tokenizer_loads_without_weights(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    tokenizer = load_tokenizer(BaseSettings(model=str(folder)))
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.vocab_size) == ("<s>", "</s>", 6)


def test_nothing_is_added_to_it(tiny_folder):
    tokenizer = load_tokenizer(BaseSettings(model=str(tiny_folder)))
    assert tokenizer.pad_token is None
    assert len(tokenizer) == 6


def test_a_broken_tokenizer_is_refused(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    (folder / "tokenizer.json").write_text('{"version": "1.0"')
    with pytest.raises(ModelError, match=r"tokenizer in .* cannot be read"):
        load_tokenizer(BaseSettings(model=str(folder)))


@pytest.mark.parametrize("name", ["DialoGPT-medium", "phi-2", "TinyLlama-1.1B-Chat-v1.0"])
def test_real_tokenizers_give_back_the_text(shared_data, name):
    tokenizer = load_tokenizer(BaseSettings(model=str(shared_data / "models" / name)))
    text = "The quick brown fox jumps over 13 lazy dogs."
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text
