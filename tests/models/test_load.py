"""Loading: what comes back, and every folder that is refused."""

import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from rankwise.errors import ModelError
from rankwise.models.fingerprint import fingerprint_base
from rankwise.models.load import load_base, load_skeleton
from rankwise.models.source import locate_base
from rankwise.study.config import BaseSettings

CPU = torch.device("cpu")
IDS = torch.tensor([[0, 3, 4, 5, 1]])


@pytest.fixture
def folder(tiny_folder, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(tiny_folder, tmp_path / "model")


@pytest.fixture(scope="module")
def base(tiny_folder):
    return load_base(BaseSettings(model=str(tiny_folder), dtype="float32"), CPU)


def refusal(folder, function=load_base, **settings):
    with pytest.raises(ModelError) as caught:
        function(BaseSettings(model=str(folder), **settings))
    return str(caught.value)


def change_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_base_is_frozen_and_in_evaluation_mode(base):
    assert not base.model.training
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert {parameter.dtype for parameter in base.model.parameters()} == {torch.float32}
    assert {parameter.device for parameter in base.model.parameters()} == {CPU}


def test_it_computes_what_transformers_computes(base, tiny_folder):
    reference = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        torch.testing.assert_close(base.model(IDS).logits, reference(IDS).logits, rtol=0, atol=0)


def test_it_says_what_it_is(base, tiny_folder):
    assert base.settings == BaseSettings(model=str(tiny_folder), dtype="float32", attention="eager")
    assert base.model.config._attn_implementation == "eager"
    assert base.fingerprint == fingerprint_base(base.settings, CPU)
    assert base.num_params == sum(tensor.numel() for tensor in load_file(tiny_folder / "model.safetensors").values())
    assert base.tokenizer("one two").input_ids == [3, 4]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_number_format_is_the_one_asked_for(tiny_folder, dtype):
    base = load_base(BaseSettings(model=str(tiny_folder), dtype=dtype), CPU)
    assert {parameter.dtype for parameter in base.model.parameters()} == {getattr(torch, dtype)}


def test_a_skeleton_has_every_shape_and_no_weights(base, folder):
    for path in folder.glob("*"):
        if path.name != "config.json":
            path.unlink()
    skeleton = load_skeleton(BaseSettings(model=str(folder), dtype="float32"))
    assert {parameter.device.type for parameter in skeleton.parameters()} == {"meta"}
    shapes = {name: (tensor.shape, tensor.dtype) for name, tensor in skeleton.named_parameters()}
    assert shapes == {name: (tensor.shape, tensor.dtype) for name, tensor in base.model.named_parameters()}
    assert not any(parameter.requires_grad for parameter in skeleton.parameters())


def test_a_model_loads_from_the_hub(fake_hub, folder, base):
    fake_hub.folders["some/model"] = folder
    loaded = load_base(BaseSettings(model="some/model", dtype="float32"), CPU)
    assert loaded.fingerprint == base.fingerprint
    with torch.no_grad():
        assert torch.equal(loaded.model(IDS).logits, base.model(IDS).logits)


def test_missing_tensors_are_not_made_up(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    message = refusal(folder)
    assert "lack 1 of the model's tensors" in message
    assert "model.layers.1.mlp.up_proj.weight" in message


def test_weights_of_another_shape_are_refused(folder):
    change_config(folder, intermediate_size=20)
    assert "cannot make a causal language model" in refusal(folder)


def test_a_cut_short_weight_file_is_refused(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-8])
    assert "SafetensorError" in refusal(folder)


@pytest.mark.parametrize("function", [load_base, load_skeleton])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "vit"}, "ViTConfig"),
        ({"model_type": "no_such_type"}, "no_such_type"),
    ],
)
def test_what_is_not_a_causal_language_model_is_refused(folder, function, change, words):
    change_config(folder, **change)
    message = refusal(folder, function)
    assert "cannot make a causal language model" in message
    assert words in message


def test_a_configuration_that_is_not_json_is_refused(folder):
    (folder / "config.json").write_text("{")
    assert "cannot make a causal language model" in refusal(folder, load_skeleton)


def test_code_that_a_model_ships_does_not_run_unasked(folder):
    ran = folder / "ran"
    (folder / "custom.py").write_text(f"open({str(ran)!r}, 'w')\nclass Config: pass\nclass Model: pass\n")
    change_config(
        folder, model_type="custom", auto_map={"AutoConfig": "custom.Config", "AutoModelForCausalLM": "custom.Model"}
    )
    assert "base.trust_remote_code: true" in refusal(folder)
    assert not ran.exists()


def test_a_tokenizer_larger_than_the_embedding_is_refused(folder):
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["vocab"]["four"] = 6
    path.write_text(json.dumps(tokenizer))
    assert "has 7 tokens, but the model embeds only 6" in refusal(folder)


def test_the_real_model_reaches_its_published_perplexity(shared_data):
    """5.07 over all 1,000 stories, here every fiftieth (PROVENANCE.md beside the data), each after `<s>` and cut at the context."""
    base = load_base(BaseSettings(model=str(shared_data / "models" / "tinystories-llama-260k"), dtype="float32"), CPU)
    assert base.num_params == 260_032
    stories = json.loads((shared_data / "lm" / "tinystories_1000.json").read_text(encoding="utf-8"))[::50]
    loss_nats, num_tokens = 0.0, 0
    for story in stories:
        ids = torch.tensor([[base.tokenizer.bos_token_id, *base.tokenizer(story, add_special_tokens=False).input_ids]])[
            :, :512
        ]
        with torch.no_grad():
            loss_nats += base.model(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        num_tokens += ids.shape[1] - 1
    assert math.exp(loss_nats / num_tokens) == pytest.approx(5.07, rel=0.05)


def test_the_embedded_model_loads():
    try:
        locate_base(BaseSettings(), "weights")
    except ModelError as error:
        pytest.skip(str(error))
    base = load_base(BaseSettings(dtype="float32"), CPU)
    assert base.tokenizer.vocab_size <= base.model.config.vocab_size
    assert 4e6 < base.num_params < 12e6
