import json

import pytest
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from typer.testing import CliRunner

from rankwise.cli.main import app
from rankwise.models.load import load_skeleton
from rankwise.study.config import BaseSettings
from tests.models.conftest import save_tiny_model

TOLD = ("one", "two", "three", "to", "go", "say")
CONTROLS = ("shuffled", "inverted")
KEYS = ["model", "strategy", "budget_params", "params", "residual_params", "sites"]
PUBLISHED = {"DialoGPT-medium": 96, "phi-2": 192, "TinyLlama-1.1B-Chat-v1.0": 154}


def run(*args: str, model: str = "nano"):
    return CliRunner().invoke(app, ["allocate", "--model", model, *args], env={"COLUMNS": "80"})


def allocated(*args: str, model: str = "nano"):
    result = run(*args, "--json", model=model)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(*args: str, model: str = "nano") -> str:
    result = run(*args, model=model)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return " ".join(result.stderr.split())


def test_json_has_exactly_the_promised_keys_and_adds_up():
    document = allocated("--strategy", "linear_decay", "--rank", "8")
    assert list(document) == KEYS
    assert (document["model"], document["strategy"]) == ("nano", "linear_decay")
    assert all(list(site) == ["name", "rank", "scale", "params"] for site in document["sites"])
    assert sum(site["params"] for site in document["sites"]) == document["params"]
    assert document["params"] + document["residual_params"] == document["budget_params"]
    ranks = [site["rank"] for site in document["sites"]]
    assert ranks[0] > 8 > ranks[-1]
    assert all(site["scale"] == pytest.approx(16 / site["rank"]) for site in document["sites"])


def test_a_uniform_rank_is_its_own_budget():
    document = allocated("--strategy", "uniform", "--rank", "3", "--targets", "q_proj", "--targets", "v_proj")
    assert {site["rank"] for site in document["sites"]} == {3}
    assert {site["name"].rpartition(".")[2] for site in document["sites"]} == {"q_proj", "v_proj"}
    assert document["residual_params"] == 0


def test_a_budget_in_parameters_is_spent():
    document = allocated("--strategy", "attention_heavy", "--params", "100000", "--setting", "ratio=3")
    assert document["budget_params"] == 100_000
    assert 0 <= document["residual_params"] < 512  # the cheapest component of nano


def test_settings_bounds_and_scaling_arrive():
    options = ("--rank", "8", "--setting", "first=4", "--setting", "last=0.5", "--min-rank", "2", "--max-rank", "12")
    document = allocated("--strategy", "linear_decay", *options, "--scaling", "constant", "--scale", "0.5")
    ranks = [site["rank"] for site in document["sites"]]
    assert (min(ranks), max(ranks)) == (2, 12)
    assert {site["scale"] for site in document["sites"]} == {0.5}
    assert allocated("--strategy", "uniform", "--rank", "8", "--alpha", "4")["sites"][0]["scale"] == 0.5


def test_a_wrapped_strategy_is_read_from_a_setting():
    plain = allocated("--strategy", "linear_decay", "--rank", "8")["sites"]
    inverted = allocated("--strategy", "inverted", "--rank", "8", "--setting", "of=linear_decay")["sites"]
    assert plain[0]["rank"] > plain[-1]["rank"]
    assert inverted[0]["rank"] < inverted[-1]["rank"]


def test_the_table_and_the_heat_map_name_every_site_and_the_totals():
    result = run("--strategy", "linear_decay", "--rank", "8")
    assert result.exit_code == 0
    document = allocated("--strategy", "linear_decay", "--rank", "8")
    assert all(site["name"] in result.stdout for site in document["sites"])
    assert f"{document['params']:,} on {len(document['sites'])} sites, 0 left unspent" in result.stdout
    assert any(line.split()[:2] == ["q_proj", str(document["sites"][0]["rank"])] for line in result.stdout.splitlines())
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_need_only_their_configuration(shared_data, tmp_path, name):
    folder = shared_data / "models" / name
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    out = tmp_path / "adapter_config.json"
    document = allocated("--strategy", "linear_growth", "--rank", "8", "--out", str(out), model=str(folder))
    assert len(document["sites"]) == PUBLISHED[name]
    assert document["residual_params"] == 0
    assert len(json.loads(out.read_text())["rank_pattern"]) == PUBLISHED[name]


def test_peft_loads_the_written_configuration_and_gives_every_site_its_rank(tmp_path):
    out = tmp_path / "new" / "adapter_config.json"
    document = allocated("--strategy", "linear_decay", "--rank", "8", "--out", str(out))
    assert [file.name for file in out.parent.iterdir()] == ["adapter_config.json"]
    config = LoraConfig.from_pretrained(str(out.parent))
    assert config.base_model_name_or_path == "nano"
    config.base_model_name_or_path = None  # peft warns that it is not the path the skeleton was made from
    model = get_peft_model(load_skeleton(BaseSettings(dtype="float32")), config)
    attached = {
        name.removeprefix("base_model.model."): (layer.r["default"], layer.scaling["default"])
        for name, layer in model.named_modules()
        if isinstance(layer, LoraLayer)
    }
    wanted = {site["name"]: (site["rank"], pytest.approx(site["scale"])) for site in document["sites"]}
    assert attached == wanted


def test_measuring_uses_real_weights_and_examples():
    document = allocated("--strategy", "empirical", "--rank", "8", "--data", "skills", "--targets", "v_proj")
    assert len({site["rank"] for site in document["sites"]}) > 1
    assert document["residual_params"] == 0


def test_a_model_of_short_context_is_measured_on_examples_that_fit(tmp_path):
    model = str(save_tiny_model(tmp_path / "model"))
    words = tmp_path / "words.txt"
    words.write_text("\n\n".join(f"one {first} {second}" for first in TOLD for second in TOLD))
    measured = ("--strategy", "empirical", "--rank", "2", "--data", str(words), "--template", "plain")
    assert "set data.max_tokens (--max-tokens) to at most 16" in refused(*measured, model=model)
    assert allocated(*measured, "--max-tokens", "16", model=model)["sites"]


MEASURED = {
    "empirical": "gradient_rms",
    "eva": "activation_variance",
    "gora": "gradient_sensitivity",
    "fisher": "fisher",
    "early_gradient_spectrum": "gradient_spectrum",
    "inverted": "gradient_rms",
}


@pytest.mark.parametrize("strategy", MEASURED)
def test_measuring_without_data_is_refused_with_what_to_name(strategy, tmp_path):
    out = tmp_path / "adapter_config.json"
    message = refused("--strategy", strategy, "--rank", "8", "--out", str(out))
    for words in ("--data is missing", f"{strategy} measures {MEASURED[strategy]}", "--data skills"):
        assert words in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("strategy", ["eva", "gora", "fisher", "early_gradient_spectrum"])
def test_every_measured_strategy_shows_its_map_and_spends_the_budget(strategy):
    options = ("--strategy", strategy, "--rank", "8", "--data", "skills", "--targets", "v_proj", "--targets", "o_proj")
    result = run(*options)
    assert result.exit_code == 0, result.output
    document = allocated(*options)
    assert len({site["rank"] for site in document["sites"]}) > 1
    assert document["residual_params"] == 0
    assert any(line.split()[:1] == ["o_proj"] for line in result.stdout.splitlines())  # the heat map's row
    controls = [allocated("--setting", f"of={strategy}", "--strategy", name, *options[2:]) for name in CONTROLS]
    assert all(control["params"] == document["params"] for control in controls)
    assert all(control["sites"] != document["sites"] for control in controls)


def test_weights_are_looked_at_without_examples():
    options = ("--rank", "8", "--targets", "v_proj", "--targets", "up_proj")
    for measure in ("stable_rank", "effective_rank"):
        document = allocated("--strategy", "weight_spectrum", "--setting", f"measure={measure}", *options)
        assert document["residual_params"] == 0
        assert len({site["rank"] for site in document["sites"]}) > 1
    assert len(allocated("--strategy", "inverted", "--setting", "of=weight_spectrum", *options)["sites"]) == 16
    noted = run("--strategy", "weight_spectrum", "--data", "skills", "--json", *options)
    assert "--data is not used" in noted.stderr


def test_data_that_no_strategy_reads_is_noted():
    result = run("--strategy", "uniform", "--rank", "8", "--data", "skills", "--json")
    assert result.exit_code == 0
    assert "--data is not used" in result.stderr
    json.loads(result.stdout)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--strategy", "inverted", "--setting", "of=random", "--rank", "8"), ["control of a control"]),
        (("--strategy", "gora", "--setting", "most=0.5", "--rank", "8"), ["most is 0.5", "1"]),
        (("--strategy", "eva", "--setting", "rho=9", "--rank", "8"), ["rho is 9", "4"]),
        (("--strategy", "weight_spectrum", "--setting", "measure=rank", "--rank", "8"), ["measure", "stable_rank"]),
        (("--strategy", "uniform"), ["exactly one of --rank and --params"]),
        (("--strategy", "uniform", "--rank", "8", "--params", "9"), ["exactly one of --rank and --params"]),
        (("--strategy", "linear_dcay", "--rank", "8"), ["linear_dcay", "linear_decay"]),
        (("--strategy", "linear_decay", "--rank", "8", "--setting", "frist=2"), ["frist", "first"]),
        (("--strategy", "linear_decay", "--rank", "8", "--setting", "first"), ["KEY=VALUE"]),
        (("--strategy", "uniform", "--rank", "8", "--alpha", "-1"), ["alpha", "-1"]),
        (("--strategy", "uniform", "--rank", "8", "--targets", "q_prj"), ["q_prj", "q_proj"]),
        (("--strategy", "uniform", "--params", "10"), ["params 10", "40,960", "fewer targets"]),
        (("--strategy", "uniform", "--rank", "8", "--min-rank", "9", "--max-rank", "4"), ["max_rank", "min_rank"]),
    ],
)
def test_bad_input_is_one_paragraph_and_writes_nothing(args, words, tmp_path):
    out = tmp_path / "adapter_config.json"
    message = refused(*args, "--out", str(out))
    assert all(word in message for word in words), message
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_not_there_is_refused(tmp_path):
    assert "no folder" in refused("--strategy", "uniform", "--rank", "8", model=str(tmp_path / "none"))


def test_a_folder_is_not_overwritten_by_a_file(tmp_path):
    message = refused("--strategy", "uniform", "--rank", "8", "--out", str(tmp_path))
    assert "is a folder" in message
    assert "adapter_config.json" in message
    assert list(tmp_path.iterdir()) == []


def test_a_strategy_without_a_map_before_training_says_so():
    message = refused("--strategy", "adalora", "--rank", "4")
    assert "its ranks move while a run trains" in message
    assert "rankwise train --strategy adalora" in message
