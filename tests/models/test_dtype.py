"""Number formats and attention kernels that `auto` stands for."""

import pytest
import torch

from rankwise.models import dtype
from rankwise.models.dtype import default_device, multiplies_bfloat16_fast, resolve_settings
from rankwise.study.config import BaseSettings

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")


@pytest.fixture
def processor(monkeypatch):
    """Pretend to a processor with these abilities."""

    def pretend(amx, onednn):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
        monkeypatch.setattr(dtype, "_onednn_accepts_bfloat16", lambda: onednn)

    return pretend


@pytest.mark.parametrize(
    ("amx", "onednn", "expected"),
    [
        (False, False, "float32"),
        (False, True, "float32"),  # plain AVX-512 or AVX512-BF16: accepted, but slower than float32
        (True, True, "bfloat16"),
        (True, False, "float32"),
    ],
)
def test_a_processor_gets_bfloat16_only_with_units_for_it(processor, amx, onednn, expected):
    processor(amx, onednn)
    assert resolve_settings(BaseSettings(), CPU).dtype == expected


def test_this_processor_is_asked_without_error():
    assert multiplies_bfloat16_fast(CPU) in (True, False)
    if not torch.cpu._is_avx512_supported():
        assert not multiplies_bfloat16_fast(CPU)


def test_devices_that_are_neither_processor_nor_cuda_get_float32():
    assert resolve_settings(BaseSettings(), torch.device("meta")).dtype == "float32"


@pytest.mark.parametrize(("fast", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_cuda_gets_the_fused_kernel_and_bfloat16_where_it_is_fast(monkeypatch, fast, expected):
    monkeypatch.setattr(dtype, "multiplies_bfloat16_fast", lambda device: fast)
    resolved = resolve_settings(BaseSettings(), CUDA)
    assert (resolved.dtype, resolved.attention) == (expected, "sdpa")


def test_a_processor_gets_plain_attention():
    assert resolve_settings(BaseSettings(), CPU).attention == "eager"


@pytest.mark.parametrize("device", [CPU, CUDA])
def test_what_was_chosen_by_hand_stays(device):
    by_hand = {"dtype": "float16", "attention": "sdpa", "quantization": "nf4", "compute_dtype": "bfloat16"}
    chosen = BaseSettings(model="a/b", revision="c", **by_hand)
    assert resolve_settings(chosen, device) == chosen
    assert resolve_settings(chosen.model_copy(update={"attention": "eager"}), device).attention == "eager"


def test_the_default_device_is_cuda_where_there_is_one():
    assert default_device().type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_is_asked_for_its_own_abilities():
    major = torch.cuda.get_device_capability(CUDA)[0]
    assert multiplies_bfloat16_fast(CUDA) == (major >= 8 or torch.version.hip is not None)


def test_4_bit_weights_are_multiplied_in_the_number_format_of_the_base():
    settings = BaseSettings(dtype="float16", quantization="nf4")
    assert resolve_settings(settings, CPU).compute_dtype == "float16"
    assert resolve_settings(settings.model_copy(update={"quantization": "int8"}), CPU).compute_dtype == "auto"
