import json
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from rankwise.cli.main import app
from rankwise.models.source import locate_base
from rankwise.study.config import BaseSettings
from tests.cli.test_train import tiny_file, tiny_model, train
from tests.execution.test_export import logits, names
from tests.lora.foreign import write_foreign

__all__ = ["tiny_file", "tiny_model"]


@pytest.fixture(scope="module")
def adapter(tiny_model, tiny_file, tmp_path_factory) -> Path:
    """Trained, with ranks 1 and 3."""
    folder = tmp_path_factory.mktemp("export") / "adapter"
    options = ["--strategy", "linear_decay", "--rank", "2", "--learning-rate", "3e-2", "--epochs", "4"]
    result = train(tiny_model, tiny_file, folder, *options, "--ledger", str(folder.parent / "l.db"))
    assert result.exit_code == 0, result.output
    return folder


def run(*arguments: object):
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def text(output: str) -> str:
    return " ".join(output.split())


def test_an_export_says_what_was_written_and_how_sure_it_is(adapter, tmp_path):
    result = run(adapter, "--to", "baked", "--out", tmp_path / "out", "--rank", 8)
    assert result.exit_code == 0, result.output
    for words in ("rank 8 everywhere", "differ by at most", "allowed", "on 64 tokens", "vLLM", "exact"):
        assert words in text(result.stdout), words
    assert result.stderr == ""


def test_json_is_one_document(adapter, tmp_path):
    result = run(adapter, "--to", "baked", "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert (document["kind"], document["rank"], document["num_layers"]) == ("baked", 3, 14)
    assert document["max_logit_difference"] <= document["allowed_difference"]
    assert [verdict["outcome"] for verdict in document["runtimes"]] == ["exact"] * 4
    written = json.loads((tmp_path / "out" / "rankwise-export.json").read_text())
    assert {key: written[key] for key in document} == document


def test_a_form_that_a_runtime_would_mis_scale_is_noted(adapter, tmp_path):
    result = run(adapter, "--to", "peft", "--out", tmp_path / "out")
    assert result.exit_code == 0
    assert "vLLM would scale this adapter otherwise" in text(result.stderr)
    assert "--to baked" in text(result.stderr)
    assert "wrong scale" in result.stdout


def test_checking_shows_the_factor_and_writes_nothing(adapter):
    before = names(adapter.parent)
    result = run(adapter, "--check")
    assert result.exit_code == 0, result.output
    assert "0.3333 to 1 in 7 layers" in text(result.stdout)
    assert "of rank 1, 3" in text(result.stdout)
    assert "rank_pattern" in text(result.stdout)
    assert "--to baked" in result.stderr
    assert names(adapter.parent) == before
    document = json.loads(run(adapter, "--check", "--json").stdout)
    vllm = next(verdict for verdict in document["runtimes"] if verdict["runtime"] == "vLLM")
    assert (vllm["outcome"], vllm["num_wrong"]) == ("wrong scale", 7)
    assert vllm["smallest_factor"] == pytest.approx(1 / 3)


def test_a_merged_model_is_scored_like_its_adapter(adapter, tiny_file, tmp_path):
    result = run(adapter, "--to", "merged", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    options = ["--data", str(tiny_file), "--template", "plain", "--max-tokens", "12", "--num", "5", "--json"]
    scores = [
        json.loads(CliRunner().invoke(app, ["evaluate", str(name), *options]).stdout)
        for name in (tmp_path / "out", adapter)
    ]
    assert any(isinstance(value, float) for value in scores[1].values())
    for name, value in scores[1].items():
        if isinstance(value, int | float):  # the intervals are documents, and follow from the same numbers
            assert scores[0][name] == pytest.approx(value, abs=1e-5)


def test_a_baked_adapter_still_knows_what_it_was_trained_on(adapter, tiny_file, tmp_path):
    assert run(adapter, "--to", "baked", "--out", tmp_path / "out").exit_code == 0
    arguments = ["evaluate", str(tmp_path / "out"), "--data", str(tiny_file), "--num", "6"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "it was trained on" in text(result.stderr)


def test_an_adapter_trained_on_a_quantized_base_is_not_merged_into_a_plain_one(adapter, tmp_path):
    copy = tmp_path / "adapter"
    copy.mkdir()
    for file in adapter.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    record = json.loads((copy / "rankwise.json").read_text())
    record["base"]["quantization"] = "nf4"
    (copy / "rankwise.json").write_text(json.dumps(record))
    result = run(copy, "--to", "merged", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "was quantized (nf4)" in text(result.stderr)
    assert names(tmp_path) == ["adapter"]
    assert run(copy, "--to", "baked", "--out", tmp_path / "out").exit_code == 0


def test_a_place_that_cannot_be_written_is_named(adapter, tmp_path):
    (tmp_path / "file").write_text("x")
    result = run(adapter, "--to", "baked", "--out", tmp_path / "file" / "out")
    assert result.exit_code == 2
    assert "cannot be written" in text(result.stderr)
    assert names(tmp_path) == ["file"]


def test_rounding_that_costs_much_of_the_update_is_noted(tiny_model, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    adapter = write_foreign(tmp_path / "adapter", model, r=1, lora_alpha=0.001)
    options = ["--to", "merged", "--dtype", "bfloat16", "--out", tmp_path / "out"]
    result = run(adapter, *options)
    assert result.exit_code == 0, result.output
    assert "rounding to bfloat16" in text(result.stderr)


def test_an_untrained_adapter_is_noted(tiny_model, tmp_path):
    adapter = write_foreign(tmp_path / "adapter", AutoModelForCausalLM.from_pretrained(tiny_model), r=1)
    path = adapter / "adapter_model.safetensors"
    from safetensors.numpy import load_file, save_file

    save_file({key: 0 * value for key, value in load_file(path).items()}, path)
    result = run(adapter, "--to", "baked", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "changes no logit" in text(result.stderr)


@pytest.mark.parametrize("kind", ["peft", "baked", "merged"])
def test_an_export_on_the_embedded_model_is_found_by_other_tools(kind, tmp_path):
    nano = locate_base(BaseSettings(), "config")
    model = AutoModelForCausalLM.from_pretrained(nano, dtype=torch.float32)
    adapter = write_foreign(tmp_path / "adapter", model, r=2, rank_pattern={"up_proj": 5}, use_rslora=True)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "nano"}))
    result = run(adapter, "--to", kind, "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    loader = AutoModelForCausalLM if kind == "merged" else AutoPeftModelForCausalLM
    found = loader.from_pretrained(tmp_path / "out", dtype=torch.float32)
    expected = AutoPeftModelForCausalLM.from_pretrained(
        _with_base(adapter, tmp_path / "named", str(nano)), dtype=torch.float32
    )
    difference = (logits(found) - logits(expected)).abs().max() / logits(expected).abs().max()
    assert float(difference) < 1e-5
    assert AutoTokenizer.from_pretrained(tmp_path / "out" if kind == "merged" else nano)("the").input_ids


def _with_base(adapter: Path, folder: Path, base: str) -> Path:
    folder.mkdir()
    for file in adapter.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": base}))
    return folder


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{adapter}"], ["--to", "--check"]),
        (["{adapter}", "--to", "baked"], ["--out"]),
        (["{adapter}", "--check", "--to", "peft"], ["--check writes nothing"]),
        (["{adapter}", "--to", "peft", "--out", "{out}", "--rank", "8"], ["--rank is for --to baked"]),
        (["{adapter}", "--to", "baked", "--out", "{out}", "--rank", "2"], ["below rank 3", "at least 3"]),
        (["{adapter}", "--to", "baked", "--out", "{out}", "--dtype", "float16"], ["--dtype is for --to merged"]),
        (["{adapter}", "--to", "merged", "--out", "{out}", "--base-name", "x"], ["--base-name is for"]),
        (["{adapter}", "--to", "gguf", "--out", "{out}"], ["'peft', 'baked', 'merged'"]),
        (["{adapter}", "--to", "baked", "--out", "{full}"], ["no export"]),
        (["{adapter}", "--to", "baked", "--out", "{adapter}"], ["is, or holds, the adapter"]),
        (["{adapter}", "--to", "baked", "--out", "{out}", "--model", "nano"], ["does not fit"]),
        (["{adapter}", "--to", "baked", "--out", "{out}", "--model", "./nowhere"], ["nowhere"]),
        (["{full}", "--check"], ["adapter_config.json"]),
        (["./nowhere", "--to", "peft", "--out", "{out}"], ["nowhere", "not an adapter folder"]),
    ],
)
def test_bad_input_is_one_paragraph_and_writes_nothing(arguments, words, adapter, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    places = {"adapter": adapter, "out": tmp_path / "out", "full": tmp_path / "full"}
    result = run(*(argument.format(**places) for argument in arguments))
    assert result.exit_code == 2, result.output
    assert all(word in text(result.stderr.replace("│", "")) for word in words), result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert names(tmp_path) == ["full"]
    assert names(tmp_path / "full") == ["thesis.tex"]
