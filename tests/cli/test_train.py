import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from rankwise.cli.main import app
from rankwise.cli.train import one_run_study, parse_settings
from rankwise.errors import StudyError
from tests.models.conftest import save_tiny_model

TINY = ["--template", "plain", "--max-tokens", "12", "--train-examples", "6", "--validation", "4", "--test", "5"]
TINY += ["--epochs", "1", "--batch-size", "2"]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """With weights large enough that an adapter can make a token certain."""
    folder = save_tiny_model(tmp_path_factory.mktemp("cli") / "model")
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(20 if parameter.ndim > 1 else 1)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory) -> Path:
    """39 different examples, and one answer to all of them."""
    file = tmp_path_factory.mktemp("cli-data") / "words.jsonl"
    lines = (" ".join(words) for words in sequences())
    file.write_text("".join(json.dumps({"instruction": line, "output": "two"}) + "\n" for line in lines))
    return file


def sequences() -> Iterator[tuple[str, ...]]:
    for length in (1, 2, 3):
        yield from product(("one", "two", "three"), repeat=length)


def train(model: Path, data: Path, out: Path, *options: str):
    arguments = ["train", "--model", str(model), "--data", str(data), "--out", str(out), *TINY, *options]
    return CliRunner().invoke(app, arguments)


def test_a_run_becomes_an_adapter_that_peft_loads(tiny_model, tiny_file, tmp_path):
    result = train(tiny_model, tiny_file, tmp_path / "adapter", "--strategy", "linear_decay", "--rank", "2")
    assert result.exit_code == 0, result.output
    for words in ("validation loss", "before", "after 3 steps", "test loss", "perplexity", "parameters", "peak memory"):
        assert words in result.stdout
    record = json.loads((tmp_path / "adapter" / "rankwise.json").read_text())
    assert f"{record['scores']['test_loss']:.4f}" in result.stdout
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), tmp_path / "adapter")
    ranks = {
        name: module.r["default"]
        for name, module in adapted.get_base_model().named_modules()
        if hasattr(module, "lora_A")
    }
    assert ranks == record["ranks"]
    assert sorted(set(ranks.values())) == [1, 3]


def test_json_is_one_document_with_what_lies_beside_the_adapter(tiny_model, tiny_file, tmp_path):
    result = train(
        tiny_model,
        tiny_file,
        tmp_path / "adapter",
        "--json",
        "--scaling",
        "constant",
        "--scale",
        "0.5",
        "--gradient-checkpointing",
    )
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document.pop("out") == str(tmp_path / "adapter")
    assert document == json.loads((tmp_path / "adapter" / "rankwise.json").read_text())
    assert set(document["scales"].values()) == {0.5}
    assert document["spec"]["arm"]["train"]["batch_size"] == 2
    assert document["spec"]["arm"]["train"]["gradient_checkpointing"] is True


def test_the_run_is_in_the_ledger_under_the_study_that_is_named(tiny_model, tiny_file, tmp_path):
    document = json.loads(train(tiny_model, tiny_file, tmp_path / "adapter", "--json").stdout)
    listed = json.loads(CliRunner().invoke(app, ["runs", "list", "--study", document["study"], "--json"]).stdout)
    assert [run["id"] for run in listed] == [document["run_id"]]
    assert listed[0]["scores"]["test_loss"] == pytest.approx(document["scores"]["test_loss"])


def test_a_diverged_run_exits_1_and_leaves_no_adapter(tiny_model, tiny_file, tmp_path):
    result = train(tiny_model, tiny_file, tmp_path / "adapter", "--learning-rate", "1e30", "--schedule", "constant")
    assert result.exit_code == 1
    assert "diverged" in result.stderr
    assert "--learning-rate" in result.stderr
    assert result.stdout == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--strategy", "linear_decai"], ["linear_decai", "linear_decay"]),
        (["--strategy", "linear_decay", "--setting", "frist=1.5"], ["frist", "first"]),
        (["--setting", "first"], ["KEY=VALUE"]),
        (["--epochs", "-1"], ["train.epochs", "-1"]),
        (["--dropout", "1.5"], ["dropout", "1.5"]),
        (["--targets", "qq_proj"], ["qq_proj", "q_proj"]),
        (["--rank", "100"], ["rank"]),
        (["--train-examples", "500"], ["examples are asked for"]),
        (["--learning-rate", "0"], ["learning_rates"]),
    ],
)
def test_bad_input_is_one_paragraph_and_leaves_nothing(tiny_model, tiny_file, tmp_path, options, words):
    result = train(tiny_model, tiny_file, tmp_path / "adapter", *options)
    assert result.exit_code == 2, result.output
    assert all(word in result.stderr for word in words), result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "adapter").exists()


def test_a_folder_with_other_files_is_refused(tiny_model, tiny_file, tmp_path):
    (tmp_path / "notes.txt").write_text("keep me")
    result = train(tiny_model, tiny_file, tmp_path)
    assert result.exit_code == 2
    assert "--out" in result.stderr
    assert (tmp_path / "notes.txt").read_text() == "keep me"


def test_settings_are_json_or_text():
    found = parse_settings(["first=1.5", "of=linear_decay", 'x={"strategy": "uniform"}', "flag=true", "text=a=b"])
    assert found == {"first": 1.5, "of": "linear_decay", "x": {"strategy": "uniform"}, "flag": True, "text": "a=b"}


def study(**changes):
    settings = {"strategy": "uniform", "settings": {}, "seed": 0, "shared": {"budget": {"rank": 2}}, **changes}
    return one_run_study(**settings)


def test_the_name_of_a_study_says_what_was_asked_for():
    assert study().name == study().name
    different = [study(seed=1), study(strategy="random"), study(shared={"budget": {"rank": 3}})]
    assert len({one.name for one in [study(), *different]}) == 4
    assert study(seed=2**32 - 1).seeds == (2**32 - 1,)


def test_an_unusable_setting_is_told_without_a_file_and_line():
    with pytest.raises(StudyError, match=r"^budget.rank is 0;"):
        study(shared={"budget": {"rank": 0}})


def test_longer_examples_than_the_model_takes_are_refused(tiny_model, tiny_file, tmp_path):
    """Its context is 16 tokens."""
    assert train(tiny_model, tiny_file, tmp_path / "whole", "--max-tokens", "16").exit_code == 0
    result = train(tiny_model, tiny_file, tmp_path / "adapter", "--max-tokens", "17")
    assert result.exit_code == 2, result.output
    told = " ".join(result.output.split())
    for words in ("data.max_tokens: 17", "more than the 16 tokens", "at most 16", str(tiny_model)[-10:]):
        assert words in told
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]
