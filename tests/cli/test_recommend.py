import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
import typer
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from rankwise.cli.main import app
from rankwise.cli.sizes import parse_duration
from rankwise.execution.recommend.snippet import training_script
from rankwise.lora.peft_folder import read_peft_folder
from rankwise.study.config import Arm, BaseSettings
from tests.models.conftest import save_tiny_model

TINY = ["--template", "plain", "--max-tokens", "12", "--train-examples", "12", "--validation", "4", "--test", "5"]
TINY += ["--epochs", "1", "--batch-size", "1", "--seeds", "2", "--strategy", "linear_decay"]
TINY += ["--learning-rate", "1e-3", "--learning-rate", "1e-2"]


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("recommend") / "model")


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory) -> Path:
    """39 different examples, and one answer to all of them."""
    file = tmp_path_factory.mktemp("recommend-data") / "words.jsonl"
    lines = (" ".join(words) for length in (1, 2, 3) for words in product(("one", "two", "three"), repeat=length))
    file.write_text("".join(json.dumps({"instruction": line, "output": "two"}) + "\n" for line in lines))
    return file


def recommend(model: Path | str, data: Path | str, out: Path, *options: str):
    arguments = ["recommend", "--model", str(model), "--data", str(data), "--out", str(out), *TINY, *options]
    return CliRunner().invoke(app, arguments)


@pytest.fixture(scope="module")
def finished(tiny_model, tiny_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("recommended")
    result = recommend(tiny_model, tiny_file, folder / "out", "--json", "--ledger", str(folder / "ledger.db"))
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout), folder / "out"


def test_json_is_one_document_and_the_one_that_is_kept(finished):
    document, out = finished
    assert document == json.loads((out / "recommendation.json").read_text())
    assert document["is_confirmed"]
    assert document["num_seeds"] == 2
    assert document["recommended"]["name"] in document["advice"] or document["recommended"]["strategy"] == "uniform"
    assert "could have been significant" in document["advice"], "two seeds can show nothing, and it says so"
    for place in document["files"].values():
        assert Path(place).exists(), place


def test_the_page_has_the_advice_and_every_arm(finished):
    document, out = finished
    page = (out / "RECOMMENDATION.md").read_text()
    assert document["advice"].split(".")[0] in page
    assert all(arm["arm"] in page for rung in document["race"] for arm in rung["arms"])
    assert (out / "evidence" / "RESULTS.md").read_text().startswith("# recommend-")


def test_the_adapter_is_that_of_the_recommended_arm_and_peft_loads_it(finished, tiny_model):
    document, out = finished
    record = json.loads((out / "adapter" / "rankwise.json").read_text())
    assert record["run_id"] in document["recommended"]["runs"]
    assert record["params"] == document["recommended"]["params"]
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), out / "adapter")
    stored = sum(p.numel() for name, p in adapted.named_parameters() if "lora_" in name)
    assert stored == document["recommended"]["params"]


def test_the_configuration_is_that_of_the_adapter_with_anchored_patterns(finished):
    _, out = finished
    config = LoraConfig.from_pretrained(out)
    trained = LoraConfig.from_pretrained(out / "adapter")
    assert not config.inference_mode
    assert config.rank_pattern == trained.rank_pattern != {}
    assert config.alpha_pattern == trained.alpha_pattern
    assert config.target_modules == trained.target_modules
    assert all(key.startswith("^") for key in config.rank_pattern)


def test_the_training_script_runs_with_peft_alone(finished, tiny_model):
    _, out = finished
    script = out / "train_with_peft.py"
    assert "rankwise" not in script.read_text().replace(str(out), "")
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "step 12/12: loss" in done.stdout
    made, wanted = read_peft_folder(out / "peft-adapter")[1], read_peft_folder(out / "adapter")[1]
    assert {name: down.shape for name, (down, _) in made.items()} == {
        name: down.shape for name, (down, _) in wanted.items()
    }
    weights = load_file(out / "peft-adapter" / "adapter_model.safetensors")
    assert all(tensor.abs().sum() > 0 for tensor in weights.values()), "every matrix was trained"


def test_the_same_command_only_writes_its_files_again(finished, tiny_model, tiny_file):
    document, out = finished
    (out / "RECOMMENDATION.md").unlink()
    result = recommend(tiny_model, tiny_file, out, "--ledger", str(out.parent / "ledger.db"))
    assert result.exit_code == 0, result.output
    assert document["advice"] in " ".join(result.stdout.split())
    assert any(line.startswith("→") for line in result.stdout.splitlines())
    assert (out / "RECOMMENDATION.md").is_file()
    assert "side by side" not in result.stderr


def test_an_adapter_that_lies_elsewhere_is_made_again(finished, tiny_model, tiny_file, tmp_path):
    _, out = finished
    result = recommend(tiny_model, tiny_file, tmp_path / "new", "--ledger", str(out.parent / "ledger.db"))
    assert result.exit_code == 0, result.output
    first = load_file(out / "adapter" / "adapter_model.safetensors")
    second = load_file(tmp_path / "new" / "adapter" / "adapter_model.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.allclose(first[name], second[name], atol=1e-4) for name in first), "alone instead of in a pack"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--rank", "4", "--params", "5000"], ["--rank and --params"]),
        (["--memory", "much"], ["'much' is not a size"]),
        (["--memory", "1MiB"], ["--memory", "no arm can be trained in 1 MiB", "--batch-size 1"]),
        (["--time", "soon"], ["'soon' is not a time"]),
        (["--time", "0s"], ["'0s' is not a time"]),
        (["--time", "0.000001s"], ["--time", "too short", "predicted to take"]),
        (["--strategy", "linear_decai"], ["linear_decai", "linear_decay"]),
        (["--rank", "100"], ["rank 100"]),
        (["--params", "5"], ["params 5 is below"]),
        (["--train-examples", "500"], ["examples are asked for"]),
        (["--epochs", "-1"], ["train.epochs", "-1"]),
        (["--learning-rate", "0"], ["learning_rates"]),
        (["--template", "chat"], ["chat template"]),
    ],
)
def test_bad_input_is_one_paragraph_and_leaves_nothing(tiny_model, tiny_file, tmp_path, options, words):
    result = recommend(tiny_model, tiny_file, tmp_path / "out", *options)
    assert result.exit_code == 2, result.output
    told = " ".join(result.stderr.replace("│", " ").split())
    assert all(word in told for word in words), result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert not (tmp_path / "out").exists()


def test_an_unknown_model_and_empty_data_are_refused(tiny_model, tiny_file, tmp_path):
    result = recommend(tmp_path / "nowhere", tiny_file, tmp_path / "out")
    assert result.exit_code == 2
    assert "there is no folder" in result.stderr
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    result = recommend(tiny_model, empty, tmp_path / "out")
    assert result.exit_code == 2
    assert "empty.jsonl" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_files_is_refused(tiny_model, tiny_file, tmp_path):
    (tmp_path / "notes.txt").write_text("keep me")
    result = recommend(tiny_model, tiny_file, tmp_path)
    assert result.exit_code == 2
    assert "--out" in result.stderr
    assert (tmp_path / "notes.txt").read_text() == "keep me"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("30min", 1800), ("1h", 3600), ("1h30m", 5400), ("1 h 30 m", 5400), ("45", 45)],
)
def test_times_are_read_as_people_write_them(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "30x", "-5m", "0", "1h30", "5m later"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(typer.BadParameter):
        parse_duration(text)


def test_the_training_script_checkpoints_where_that_was_asked_for():
    resolved = BaseSettings(dtype="float32", compute_dtype="float32")
    plain, again = (
        training_script(
            Arm(name="uniform", strategy="uniform", budget={"rank": 2}, train={"gradient_checkpointing": is_on}),
            resolved,
            num_examples=1,
        )
        for is_on in (False, True)
    )
    compile(again, "train_with_peft.py", "exec")
    enabled = [line for line in again.splitlines() if line not in plain.splitlines()]
    assert enabled == [
        'enable = getattr(base, "activation_checkpointing_enable", None) or base.gradient_checkpointing_enable',
        'enable({"use_reentrant": False})',
    ]
