"""What two passes tell about all others; times come from a clock of the test, never from the machine."""

import json

import pytest
import torch
from transformers import OPTConfig

from rankwise.profiling import calibration as module
from rankwise.profiling import calibration_cache as cache
from rankwise.profiling.calibration import NUM_BLOCKS, Calibration, PassSpeed, Workload, calibrate
from rankwise.study.config import BaseSettings
from tests.tiny import tiny_llama

FOUND = Calibration(
    training=PassSpeed(overhead_s=0.5, flops_per_s=100.0),
    scoring=PassSpeed(overhead_s=0.25, flops_per_s=200.0),
    decoding=PassSpeed(overhead_s=0.125, flops_per_s=150.0),
    params_per_s=50.0,
)


def test_two_passes_give_back_the_speed_that_made_them():
    true = PassSpeed(overhead_s=0.002, flops_per_s=3e9)
    points = [(flops, true.predict_s(NUM_BLOCKS, flops)) for flops in (1e6, 4e9)]
    found = PassSpeed.solve(*points)
    assert found.overhead_s == pytest.approx(true.overhead_s)
    assert found.flops_per_s == pytest.approx(true.flops_per_s)
    assert found.predict_s(8, 1e10) == pytest.approx(8 * 0.002 + 1e10 / 3e9)


def test_noise_never_makes_a_negative_overhead():
    assert PassSpeed.solve((1.0, 0.0), (10.0, 1.0)).overhead_s == 0


@pytest.mark.parametrize("targets", ["all-linear", "attention"])
def test_any_model_is_calibrated_from_its_configuration(targets):
    config = tiny_llama().config
    before = config.to_dict()
    workload = Workload(targets=targets, rank=4, row_tokens=8, pass_tokens=64, num_slots=2)
    settings = BaseSettings(dtype="float32", compute_dtype="float32", attention="eager")
    found = calibrate(config, workload, settings=settings, device=torch.device("cpu"))
    speeds = (found.training, found.scoring, found.decoding)
    assert min(*(speed.flops_per_s for speed in speeds), found.params_per_s) > 0
    assert found.training.overhead_s >= 0
    assert config.to_dict() == before


def test_a_family_that_names_its_layers_otherwise_is_calibrated_too():
    """OPT's MLP is known by the names of its layers, which are other ones once adapters are attached."""
    config = OPTConfig(
        hidden_size=16, ffn_dim=32, num_hidden_layers=2, num_attention_heads=2, word_embed_proj_dim=16, vocab_size=50
    )
    config._attn_implementation = "eager"
    workload = Workload(targets="all-linear", rank=2, row_tokens=8, pass_tokens=32, num_slots=2)
    settings = BaseSettings(dtype="float32", compute_dtype="float32", attention="eager")
    assert calibrate(config, workload, settings=settings, device=torch.device("cpu")).params_per_s > 0


def test_a_quantized_base_is_calibrated_on_quantized_blocks(monkeypatch):
    pytest.importorskip("bitsandbytes")
    seen = []
    real = module.quantize_model

    def watched(*args):
        seen.append(real(*args))
        return seen[-1]

    monkeypatch.setattr(module, "quantize_model", watched)
    settings = BaseSettings(dtype="float32", compute_dtype="float32", attention="eager", quantization="nf4")
    workload = Workload(targets="all-linear", rank=4, row_tokens=8, pass_tokens=64, num_slots=2)
    assert calibrate(tiny_llama().config, workload, settings=settings, device=torch.device("cpu")).params_per_s > 0
    kinds = {type(layer.base if hasattr(layer, "base") else layer).__name__ for layer in seen[0].modules()}
    assert "Linear4bit" in kinds


def test_a_calibration_is_read_as_it_was_kept_and_leaves_others(tmp_path, monkeypatch):
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path / "new" / "folder"))
    assert cache.read_calibrations() == {}
    cache.keep_calibration("one", FOUND)
    cache.keep_calibration("two", FOUND)
    assert cache.read_calibrations() == {"one": FOUND, "two": FOUND}
    assert [path.name for path in cache.cache_folder().iterdir()] == [cache.FILE_NAME]


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"version": 0, "calibrations": {}}', '{"version": 2, "calibrations": {"a": {}}}']
)
def test_a_file_that_means_nothing_is_written_anew(tmp_path, monkeypatch, content):
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path))
    (tmp_path / cache.FILE_NAME).write_text(content)
    assert cache.read_calibrations() == {}
    cache.keep_calibration("one", FOUND)
    assert list(json.loads((tmp_path / cache.FILE_NAME).read_text())["calibrations"]) == ["one"]


def test_where_nothing_can_be_written_nothing_is_kept(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("in the way")
    monkeypatch.setenv("RANKWISE_CACHE", str(file / "folder"))
    cache.keep_calibration("one", FOUND)
    assert cache.read_calibrations() == {}


def test_the_folder_is_the_platforms_own(monkeypatch, tmp_path):
    monkeypatch.delenv("RANKWISE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(cache.sys, "platform", "linux")
    assert cache.cache_folder() == tmp_path / "rankwise"
    monkeypatch.setattr(cache.sys, "platform", "darwin")
    assert cache.cache_folder().parts[-3:] == ("Library", "Caches", "rankwise")
