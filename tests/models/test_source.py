"""Which files a base model is read from, and every way in which they can be missing."""

import shutil
import time

import huggingface_hub.constants
import pytest

from rankwise.errors import ModelError
from rankwise.models import source
from rankwise.models.source import INDEX_FILE, locate_base, part_files
from rankwise.study.config import BaseSettings

ALL = ("config", "tokenizer", "weights")


@pytest.fixture
def folder(tiny_folder, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(tiny_folder, tmp_path / "model")


def refusal(settings, *parts):
    with pytest.raises(ModelError) as caught:
        locate_base(settings, *parts)
    return str(caught.value)


def test_an_existing_folder_is_used_in_place(tiny_folder):
    assert locate_base(BaseSettings(model=str(tiny_folder)), *ALL) == tiny_folder


def test_nano_is_in_the_package_and_its_absence_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(source, "files", lambda package: tmp_path / package)
    message = refusal(BaseSettings(model="nano"), "config")
    assert str(tmp_path / "rankwise" / "assets" / "nano") in message
    assert "Install rankwise again" in message


@pytest.mark.parametrize(
    ("lost", "part", "words"),
    [
        ("config.json", "config", ["no config.json", "save_pretrained"]),
        ("tokenizer.json", "tokenizer", ["no tokenizer", "tokenizer.json"]),
        ("model.safetensors", "weights", ["no safetensors weights", "refs/pr/1"]),
    ],
)
def test_a_missing_part_is_named(folder, lost, part, words):
    (folder / lost).unlink()
    message = refusal(BaseSettings(model=str(folder)), part)
    assert all(word in message for word in [str(folder), *words])


def test_only_the_parts_asked_for_must_be_there(folder):
    (folder / "model.safetensors").unlink()
    assert locate_base(BaseSettings(model=str(folder)), "config", "tokenizer") == folder


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickled_weights_are_refused_with_the_way_to_convert_them(folder, name):
    (folder / "model.safetensors").rename(folder / name)
    message = refusal(BaseSettings(model=str(folder)), "weights")
    assert name in message
    assert f"from_pretrained('{folder}').save_pretrained" in message


def test_a_missing_shard_is_named(folder):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    (folder / INDEX_FILE).write_text(
        '{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}'
    )
    message = refusal(BaseSettings(model=str(folder)), "weights")
    assert "1 of the 2" in message
    assert "model-00002-of-00002.safetensors" in message


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": 3}'])
def test_a_broken_index_is_refused(folder, text):
    (folder / "model.safetensors").unlink()
    (folder / INDEX_FILE).write_text(text)
    assert INDEX_FILE in refusal(BaseSettings(model=str(folder)), "weights")


def test_an_adapter_is_not_a_base(folder):
    (folder / "adapter_config.json").write_text("{}")
    assert "PEFT adapter" in refusal(BaseSettings(model=str(folder)), "config")


@pytest.mark.parametrize("model", ["/nowhere/at/all", "./nowhere", "../nowhere", "~/nowhere-at-all", "a/b/c"])
def test_a_path_that_is_no_folder_is_not_looked_up_on_the_hub(model):
    message = refusal(BaseSettings(model=model), "config")
    assert "there is no folder" in message
    assert "nano" in message


def test_a_file_is_not_a_folder(folder):
    assert "is a file" in refusal(BaseSettings(model=str(folder / "config.json")), "config")


@pytest.mark.parametrize("model", ["not an id", "what?", "-x-"])
def test_an_impossible_id_is_refused(model):
    assert "neither a folder here nor a possible hub id" in refusal(BaseSettings(model=model), "config")


def test_a_revision_needs_the_hub(tiny_folder):
    for model in (str(tiny_folder), "nano"):
        assert "base.revision" in refusal(BaseSettings(model=model, revision="main"), "config")


def test_a_repository_is_downloaded_without_what_is_not_needed(fake_hub, folder):
    for name in ("pytorch_model.bin", "README.md", "modeling_custom.py", "onnx/config.json", "tf_model.h5"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")
    fake_hub.folders["some/model"] = folder
    copy = locate_base(BaseSettings(model="some/model"), *ALL)
    expected = {path.name for part in ALL for path in part_files(folder, part)}
    assert {path.name for path in copy.iterdir()} == expected
    assert "model.safetensors" in expected
    assert (copy / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_code_is_downloaded_only_when_it_may_run(fake_hub, folder):
    (folder / "modeling_custom.py").write_text("x")
    fake_hub.folders["some/model"] = folder
    assert (
        locate_base(BaseSettings(model="some/model", trust_remote_code=True), "config") / "modeling_custom.py"
    ).exists()


def test_a_skeleton_needs_no_weights_from_the_hub(fake_hub, folder):
    fake_hub.folders["some/model"] = folder
    locate_base(BaseSettings(model="some/model"), "config")
    assert not any("safetensors" in path for path in fake_hub.requests)


def test_what_was_downloaded_once_needs_no_hub(fake_hub, folder, monkeypatch):
    fake_hub.folders["some/model"] = folder
    online = locate_base(BaseSettings(model="some/model"), *ALL)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    num_requests = len(fake_hub.requests)
    assert locate_base(BaseSettings(model="some/model"), *ALL) == online
    assert len(fake_hub.requests) == num_requests


def test_an_incomplete_download_is_not_taken_for_a_model(fake_hub, folder, monkeypatch):
    fake_hub.folders["some/model"] = folder
    locate_base(BaseSettings(model="some/model"), "config")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "could not be downloaded" in refusal(BaseSettings(model="some/model"), *ALL)


def test_a_repository_with_pickled_weights_alone_is_refused(fake_hub, folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    fake_hub.folders["some/model"] = folder
    assert "refs/pr/1" in refusal(BaseSettings(model="some/model"), *ALL)
    assert not any(path.endswith(".bin") for path in fake_hub.requests)


def test_the_hubs_refusals_are_told_apart(fake_hub, folder):
    fake_hub.folders["some/model"] = folder
    fake_hub.refusals["gated/model"] = (403, "GatedRepo")
    assert "nor a repository on the hub" in refusal(BaseSettings(model="no/model"), "config")
    assert "licence must be accepted" in refusal(BaseSettings(model="gated/model"), "config")
    assert "no commit, tag or branch 'v9'" in refusal(BaseSettings(model="some/model", revision="v9"), "config")


@pytest.mark.parametrize("offline", [False, True])
def test_an_unreachable_hub_is_said_at_once_and_the_alternatives_named(fake_hub, monkeypatch, offline):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")  # the discard port: refused
    began = time.monotonic()
    message = refusal(BaseSettings(model="microsoft/DialoGPT-medium"), "config")
    assert time.monotonic() - began < 20
    assert all(word in message for word in ["microsoft/DialoGPT-medium", "could not be downloaded", "folder", "`nano`"])
