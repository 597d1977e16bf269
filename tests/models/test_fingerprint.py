"""A fingerprint moves with everything that can change a result, and with nothing else."""

import os
import shutil

import pytest
import torch

from rankwise.models import fingerprint
from rankwise.models.fingerprint import fingerprint_base
from rankwise.study.config import BaseSettings

CPU = torch.device("cpu")


@pytest.fixture
def folder(tiny_folder, tmp_path):
    return shutil.copytree(tiny_folder, tmp_path / "model")


def of(folder, **settings):
    return fingerprint_base(BaseSettings(model=str(folder), **settings), CPU)


def flip_last_byte(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_it_is_sixteen_hexadecimal_digits(folder):
    assert len(of(folder)) == 16
    int(of(folder), 16)


def test_a_copy_elsewhere_has_the_same(folder, tiny_folder):
    (folder / "README.md").write_text("not read")
    os.utime(folder / "model.safetensors", (0, 0))
    assert of(folder) == of(tiny_folder)


def test_a_hub_model_has_the_fingerprint_of_its_copy(folder, fake_hub):
    fake_hub.folders["some/model"] = folder
    assert fingerprint_base(BaseSettings(model="some/model"), CPU) == of(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"])
def test_one_changed_bit_changes_it(folder, name):
    before = of(folder)
    flip_last_byte(folder / name)
    assert of(folder) != before


def test_what_changes_the_arithmetic_changes_it(folder):
    settings = [
        {"dtype": "float32", "attention": "eager"},
        {"dtype": "bfloat16", "attention": "eager"},
        {"dtype": "float32", "attention": "sdpa"},
        {"dtype": "float32", "attention": "eager", "quantization": "int8"},
        {"dtype": "float32", "attention": "eager", "quantization": "nf4"},
        {"dtype": "float32", "attention": "eager", "quantization": "fp4"},
        {"dtype": "float32", "attention": "eager", "quantization": "nf4", "double_quantization": False},
        {"dtype": "float32", "attention": "eager", "quantization": "nf4", "compute_dtype": "bfloat16"},
    ]
    assert len({of(folder, **each) for each in settings}) == len(settings)


@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_settings_of_4_bit_weights_do_not_count_for_others(folder, quantization):
    others = {"quantization": quantization, "double_quantization": False, "compute_dtype": "float16"}
    assert of(folder, **others) == of(folder, quantization=quantization)


def test_the_compute_dtype_is_that_of_the_base_unless_it_is_given(folder):
    nf4 = {"dtype": "bfloat16", "attention": "eager", "quantization": "nf4"}
    assert of(folder, **nf4) == of(folder, **nf4, compute_dtype="bfloat16")


def test_auto_and_what_it_stands_for_are_the_same(folder, monkeypatch):
    monkeypatch.setattr("rankwise.models.dtype.multiplies_bfloat16_fast", lambda device: False)
    assert of(folder) == of(folder, dtype="float32", attention="eager")


def test_code_counts_only_where_it_may_run(folder):
    without, trusting = of(folder), of(folder, trust_remote_code=True)
    (folder / "modeling_custom.py").write_text("x = 1")
    assert of(folder) == without
    assert of(folder, trust_remote_code=True) != trusting


def test_unchanged_files_are_read_once(folder, monkeypatch):
    before = of(folder)
    monkeypatch.setattr(fingerprint.hashlib, "file_digest", lambda *args: pytest.fail("read again"))
    assert of(folder) == before
