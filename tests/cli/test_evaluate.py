import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from rich.console import Console
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from rankwise.cli.main import app
from rankwise.cli.run_tables import answers_table
from rankwise.errors import DataError
from rankwise.evaluation.benchmarks import BenchmarkResult, BenchmarkScore
from rankwise.evaluation.metrics import METRICS
from rankwise.execution.adapter_record import read_record
from rankwise.execution.evaluate import data_settings
from rankwise.records import WrittenAnswer
from tests.cli.test_train import tiny_file, tiny_model, train
from tests.lora.foreign import write_foreign

__all__ = ["tiny_file", "tiny_model"]

KEYS = {"num_examples", "num_answer_tokens", "loss_nats", "perplexity", "token_accuracy", "exact_match"}


@pytest.fixture(scope="module")
def adapter(tiny_model, tiny_file, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate") / "adapter"
    result = train(
        tiny_model,
        tiny_file,
        folder,
        "--learning-rate",
        "3e-2",
        "--epochs",
        "8",
        "--ledger",
        str(folder.parent / "l.db"),
    )
    assert result.exit_code == 0, result.output
    return folder


def evaluate(*arguments: object):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def scores(*arguments: object) -> dict[str, float]:
    result = evaluate(*arguments, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert set(document) >= KEYS
    return document


@pytest.mark.parametrize("split", ["test", "validation"])
def test_the_scores_are_those_of_the_run_that_trained_the_adapter(adapter, tiny_file, split):
    record = read_record(adapter)
    found = scores(adapter, "--data", tiny_file, "--split", split)
    assert found["num_examples"] == getattr(record.data, split)
    assert found["loss_nats"] == pytest.approx(record.scores[f"{split}_loss"], abs=1e-5)
    assert found["token_accuracy"] == pytest.approx(record.scores[f"{split}_token_accuracy"])


def test_a_base_model_alone_has_the_score_before_training(adapter, tiny_model, tiny_file):
    template = ["--template", "plain", "--max-tokens", 12]
    found = scores(tiny_model, "--data", tiny_file, *template, "--num", 5)
    assert found["loss_nats"] > scores(adapter, "--data", tiny_file)["loss_nats"] + 0.3
    assert found["exact_match"] == 0


def test_exact_matches_are_counted_and_the_examples_shown(adapter, tiny_file):
    found = scores(adapter, "--data", tiny_file)
    result = evaluate(adapter, "--data", tiny_file, "--examples", 5)
    rows = [line for line in result.stdout.splitlines() if line.rstrip(" │").endswith((" yes", " no"))]
    assert len(rows) == 5
    assert found["exact_match"] == sum("yes" in row for row in rows) / 5
    assert found["exact_match"] > 0
    assert f"{100 * found['exact_match']:.1f}%" in result.stdout


def test_without_answers_there_is_no_exact_match(adapter, tiny_file):
    assert scores(adapter, "--data", tiny_file, "--no-generate")["exact_match"] is None
    assert "no answers written" in evaluate(adapter, "--data", tiny_file, "--no-generate").stdout


def test_examples_do_not_disturb_the_json_document(adapter, tiny_file):
    result = evaluate(adapter, "--data", tiny_file, "--examples", 2, "--json")
    assert set(json.loads(result.stdout)) >= KEYS
    assert "expected" in result.stderr


def test_an_adapter_that_peft_made_is_scored_on_the_base_it_names_or_the_one_given(tiny_model, tiny_file, tmp_path):
    made = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), made).save_pretrained(tmp_path)
    options = ["--data", tiny_file, "--template", "plain", "--max-tokens", 12, "--num", 5, "--no-generate"]
    named = scores(tmp_path, *options)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tiny_model)
    config["base_model_name_or_path"] = None
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    result = evaluate(tmp_path, *options)
    assert result.exit_code == 2
    assert "--model" in result.stderr
    assert scores(tmp_path, *options, "--model", tiny_model) == named
    assert named != scores(tiny_model, *options)


def test_another_base_than_the_one_trained_on_is_noted(adapter, tiny_model, tiny_file, tmp_path):
    quick = ["--data", tiny_file, "--no-generate", "--json"]
    assert "note" not in evaluate(adapter, *quick).stderr
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        model.lm_head.weight.add_(0.1)
    for file in tiny_model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    model.save_pretrained(tmp_path)
    result = evaluate(adapter, *quick, "--model", tmp_path)
    assert "not the one that" in " ".join(result.stderr.split())
    assert set(json.loads(result.stdout)) >= KEYS


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{empty}"], ["adapter_config.json"]),
        (["{adapter}", "--num", "6"], ["5 test examples", "at most 5"]),
        (["{adapter}", "--template", "alpaca"], ["template plain", "--template"]),
        (["{adapter}", "--max-tokens", "9"], ["max_tokens 12"]),
        (["{model}", "--model", "{model}"], ["not an adapter folder"]),
        (["{adapter}", "--examples", "2", "--no-generate"], ["--no-generate"]),
        (["{adapter}", "--model", "./nowhere"], ["nowhere"]),
        (["{adapter}", "--model", "nano"], ["does not fit", "size mismatch"]),
        (["{adapter}", "nano"], ["do not share a base model", "nano", "--model"]),
        (["{adapter}", "--out", "{empty}/no/rows.jsonl"], ["rows.jsonl", "cannot be written", "Nothing was evaluated"]),
        (["{adapter}", "--out", "{empty}"], ["cannot be written", "it is a folder"]),
        (["{adapter}", "--forgetting", "{file}"], ["instructions with answers", "general"]),
        (["{adapter}", "--forgetting", "general"], ["34 passages, of which 0 have at most 16 tokens"]),
    ],
)
def test_bad_input_is_one_paragraph(arguments, words, adapter, tiny_model, tiny_file, tmp_path):
    places = {"adapter": adapter, "model": tiny_model, "empty": tmp_path, "file": tiny_file}
    result = evaluate(*(argument.format(**places) for argument in arguments), "--data", tiny_file)
    assert result.exit_code == 2, result.output
    assert all(word in result.stderr for word in words), result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert not list(tmp_path.iterdir())


def test_a_base_that_is_gone_is_named_with_the_way_out(adapter, tiny_file, tmp_path):
    for file in adapter.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "/gone/model"
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    result = evaluate(tmp_path, "--data", tiny_file)
    assert result.exit_code == 2
    assert "/gone/model" in result.stderr
    assert "--model" in result.stderr


def settings(adapter: Path, source: object, **changes):
    options = {"split": "test", "num": None, "template": None, "max_tokens": None, **changes}
    return data_settings([read_record(adapter)], str(source), **options)


def test_other_data_is_prompted_as_in_training_and_split_by_the_defaults(adapter):
    found = settings(adapter, "skills")
    assert (found.source, found.template, found.max_tokens) == ("skills", "plain", 12)
    assert (found.test, found.seed) == (200, 0)
    assert settings(adapter, "skills", split="validation", num=30).test == 400
    assert settings(adapter, "skills", template="alpaca", max_tokens=99).max_tokens == 99


def test_its_own_data_keeps_its_own_splits(adapter, tiny_file, monkeypatch):
    monkeypatch.chdir(tiny_file.parent)
    for source in (tiny_file, tiny_file.name):
        found = settings(adapter, source, split="validation")
        assert (found.test, found.validation) == (5, 4)
        with pytest.raises(DataError, match="at most 4"):
            settings(adapter, source, split="validation", num=5)


def test_text_from_a_data_set_cannot_steer_the_terminal():
    texts = {"question": "[bold]say\x1b[2J\nx", "expected": "out[/]", "written": "\x1b]0;title\x07" + "a" * 1000}
    table = answers_table([WrittenAnswer(**texts, num_tokens=1, exact_match=False, rouge_l=0.0, chrf=0.0)])
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table)
    text = console.export_text()
    assert "[bold]say" in text
    assert "out[/]" in text
    assert "\x1b" not in text
    assert "\x07" not in text
    assert text.count("a") < 500


@pytest.fixture(scope="module")
def other(tiny_model, tmp_path_factory) -> Path:
    return write_foreign(tmp_path_factory.mktemp("other"), AutoModelForCausalLM.from_pretrained(tiny_model), r=2)


def test_every_score_has_an_interval(adapter, tiny_file, tiny_model):
    found = scores(tiny_model, "--data", tiny_file, "--num", 20, "--template", "plain", "--max-tokens", 12)
    names = set(found) - {"num_examples", "num_answer_tokens", "intervals"}
    assert names == set(METRICS)
    assert set(found["intervals"]) == names
    for name in names:
        interval = found["intervals"][name]
        assert interval["low"] <= found[name] <= interval["high"], name
        assert interval["level"] == 0.95
    few = scores(adapter, "--data", tiny_file)
    assert few["intervals"]["loss_nats"] is None
    assert few["intervals"]["exact_match"] is not None


def test_several_adapters_are_compared_on_the_same_examples(adapter, other, tiny_model, tiny_file):
    names = (tiny_model, adapter, other)
    document = json.loads(evaluate(*names, "--data", tiny_file, "--json").stdout)
    assert [model["name"] for model in document["models"]] == list(map(str, names))
    base, mine, _ = document["models"]
    assert mine["loss_nats"] == pytest.approx(scores(adapter, "--data", tiny_file)["loss_nats"], abs=1e-5)
    first, _ = document["differences"]
    assert (first["name"], first["baseline"]) == (str(adapter), str(tiny_model))
    assert first["loss_nats"] == pytest.approx(mine["loss_nats"] - base["loss_nats"])
    assert set(first["intervals"]) == set(METRICS)


def test_the_table_of_several_models_fits_a_terminal(adapter, other, tiny_file, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    names = [shutil.copytree(adapter, adapter.parent / "a"), shutil.copytree(other, adapter.parent / "b")]
    monkeypatch.chdir(adapter.parent)
    result = evaluate(*(name.name for name in names), "--data", tiny_file, "--examples", 1)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert "exact" in next(line for line in lines if line.startswith("model"))
    assert any(line.startswith("minus a") for line in lines)
    assert "…" not in result.stdout
    assert max(map(len, lines)) <= 80


def test_every_example_is_written_to_a_file(adapter, tiny_file, tmp_path):
    out = tmp_path / "rows.jsonl"
    found = json.loads(evaluate(adapter, "--data", tiny_file, "--out", out, "--json").stdout)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == found["num_examples"] == 5
    assert sum(row["loss_nats"] for row in rows) / found["num_answer_tokens"] == pytest.approx(found["loss_nats"])
    assert sum(row["exact_match"] for row in rows) == found["exact_match"] * 5
    assert all(row["exact_match"] == (row["got"].strip() == row["expected"] == "two") for row in rows)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_forgetting_is_measured_on_any_plain_text(adapter, tiny_model, tiny_file, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text(
        "\n\n".join(" ".join(["one two three"] * (1 + n % 3)) + " one" * (n // 3) for n in range(9))
        + "\n\n"
        + "two " * 40
    )
    document = scores(adapter, "--data", tiny_file, "--forgetting", text, "--no-generate")["forgetting"]
    assert document["num_passages"] == 9
    assert document["difference_nats"] == pytest.approx(document["after_nats"] - document["before_nats"])
    assert document["interval"]["low"] < document["difference_nats"] < document["interval"]["high"]
    result = evaluate(adapter, "--data", tiny_file, "--forgetting", text, "--no-generate")
    assert "left out 1 of 10 passages" in " ".join(result.stderr.split())
    assert f"on {document['num_passages']} general passages" in " ".join(result.stdout.split())
    assert "forgetting" not in scores(
        tiny_model,
        "--data",
        tiny_file,
        "--forgetting",
        text,
        "--no-generate",
        "--num",
        5,
        "--template",
        "plain",
        "--max-tokens",
        12,
    )


def test_adapters_that_were_trained_on_other_splits_are_not_mixed(adapter):
    record = read_record(adapter)
    reseeded = record.model_copy(update={"data": record.data.model_copy(update={"seed": 1})})
    options = {"split": "test", "num": None, "template": None, "max_tokens": None}
    with pytest.raises(DataError, match="different splits"):
        data_settings([record, reseeded], record.data.source, **options)
    chat = record.model_copy(update={"data": record.data.model_copy(update={"template": "chat"})})
    with pytest.raises(DataError, match=r"values of template \(chat, plain\).*--template"):
        data_settings([record, chat], "skills", **options)
    assert data_settings([record, chat], "skills", **{**options, "template": "chat"}).template == "chat"
    assert data_settings([None, record], "skills", **options).template == "plain"


def test_a_benchmark_is_run_on_adapters_and_bases(tiny_model, other, tmp_path, monkeypatch):
    """The harness itself is replaced: what it gives is tested in `tests/evaluation/test_benchmarks.py`."""
    seen = []

    def stand_in(base, name, inputs, *, limit):
        seen.append((name, limit, inputs.file, len(inputs.examples)))
        score = BenchmarkScore(task=name, metric="exact_match", filter="strict", value=0.25, stderr=0.125)
        row = {"index": 0, "prompt": "one", "expected": "two", "got": "two", "filter": "strict", "exact_match": 1.0}
        return BenchmarkResult(name=name, harness="9.9", num_examples=4, scores=(score,), examples=(row,))

    monkeypatch.setattr("rankwise.cli.benchmark.run_benchmark", stand_in)
    monkeypatch.setattr("rankwise.cli.benchmark.require_benchmark", lambda _name: None)
    file, out = tmp_path / "q.jsonl", tmp_path / "rows.jsonl"
    options = ["--benchmark", "gsm8k", "--benchmark-data", file, "--limit", 4]
    document = json.loads(evaluate(tiny_model, *options, "--json").stdout)
    assert document["scores"] == [
        {"task": "gsm8k", "metric": "exact_match", "filter": "strict", "value": 0.25, "stderr": 0.125}
    ]
    assert (document["benchmark"], document["harness"], document["num_examples"]) == ("gsm8k", "lm-eval 9.9", 4)
    result = evaluate(tiny_model, other, *options, "--out", out)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("0.2500") == 2
    assert [json.loads(line)["model"] for line in out.read_text().splitlines()] == [str(tiny_model), str(other)]
    assert seen == [("gsm8k", 4, file, 0)] * 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give --data DATA for held-out examples, or --benchmark NAME"),
        (["--data", "skills", "--benchmark", "skills"], "and not both"),
        (["--benchmark", "skills", "--num", "3"], "--num goes with --data"),
        (["--data", "skills", "--limit", "3"], "--limit goes with --benchmark"),
    ],
)
def test_a_benchmark_and_a_data_set_have_options_of_their_own(arguments, words, tiny_model):
    result = evaluate(tiny_model, *arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.replace("│", " ").split())


def test_longer_examples_than_the_model_takes_are_refused(tiny_model, tiny_file):
    result = evaluate(tiny_model, "--data", tiny_file, "--template", "plain", "--max-tokens", 17, "--num", 5)
    assert result.exit_code == 2, result.output
    assert "data.max_tokens: 17 is more than the 16 tokens" in " ".join(result.output.split())
