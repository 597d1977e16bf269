import json
from dataclasses import fields

import pytest
from typer.testing import CliRunner

from rankwise.cli.main import app
from rankwise.cli.plan_tables import TERMS
from rankwise.ledger import open_ledger
from rankwise.packing.memory import MemoryEstimate
from rankwise.testing.sample_ledger import write_sample

STUDY = """
name: {name}
hypothesis: Where the ranks are makes a difference.
base: {{dtype: float32}}
data: {{max_tokens: 128, train: 8, validation: 6, test: 6}}
budget: {{rank: 2}}
train: {{epochs: 1, batch_size: 2, learning_rates: [1.0e-3, 1.0e-2]}}
arms: {arms}
seeds: {seeds}
"""


@pytest.fixture
def study_file(tmp_path, monkeypatch):
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def write(name="small", arms="[uniform, linear_decay, empirical]", seeds=7):
        file = tmp_path / "study.yaml"
        file.write_text(STUDY.format(name=name, arms=arms, seeds=seeds))
        return str(file)

    return write


def run(*args: str):
    return CliRunner().invoke(app, [*args], env={"COLUMNS": "80"})


def test_json_is_one_document_with_the_promised_keys(study_file):
    result = run("plan", study_file(), "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert list(document) == ["study", "num_runs", "num_packs", "minimum_detectable_nats", "predicted", "runs", "packs"]
    assert (document["study"], document["num_runs"], document["num_packs"]) == ("small", 6 + 21, 3)


def test_the_page_shows_arms_packs_memory_totals_and_what_can_be_shown(study_file):
    result = run("plan", study_file())
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    for words in (
        "on 56 layers (all-linear)",
        "All arms: scaling alpha / r, alpha 16; init kaiming",
        "uniform 2 8 81,920 0 1 of 2 2 + 7",
        "empirical after probing – ≤ 81,920 – 1 of 2 2 + 7",
        "1 learning rates 6 4",
        "2–3 the report 10–11 4",
        "AdamW's two averages",
        "27 (6 to choose learning rates, 21 reported) in 3 packs",
        "GiB may be filled",
        "predicted from a calibration of this machine",
        "needs 7 seeds; this study has 7: enough",
    ):
        assert words in text
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_targets_and_strategies_are_told_where_arms_differ_in_them(study_file):
    arms = "[uniform, {name: heads, strategy: uniform, targets: attention}]"
    text = " ".join(run("plan", study_file(arms=arms)).stdout.split())
    assert "heads (uniform) attention (32) 2" in text
    assert "uniform all-linear (56) 2" in text


def test_nothing_is_written(study_file, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    file = study_file()
    for args in (("plan", file), ("plan", file, "--ledger", str(tmp_path / "none.db")), ("study", file, "--dry-run")):
        assert run(*args).exit_code == 0
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "study.yaml"])


def test_a_dry_run_prints_the_plan(study_file):
    file = study_file()
    plan, dry = (json.loads(run(*args, "--json").stdout) for args in (("plan", file), ("study", file, "--dry-run")))
    assert (dry["runs"], dry["num_packs"]) == (plan["runs"], plan["num_packs"])


def test_the_ledger_gives_the_detectable_difference(study_file, tmp_path):
    path = tmp_path / "earlier.db"
    with open_ledger(str(path)) as ledger:
        write_sample(ledger)
    file = study_file(name="sample", arms="[uniform, linear_decay]")
    found = json.loads(run("plan", file, "--ledger", str(path), "--json").stdout)["minimum_detectable_nats"]
    assert 0 < found < 1
    assert f"A true difference of {found:.4f} nats" in " ".join(run("plan", file, "--ledger", str(path)).stdout.split())
    assert json.loads(run("plan", file, "--json").stdout)["minimum_detectable_nats"] is None


def test_a_pilot_of_another_name_says_what_can_be_shown_and_how_many_seeds_it_takes(study_file, tmp_path):
    path = tmp_path / "earlier.db"
    with open_ledger(str(path)) as ledger:
        write_sample(ledger)
    given = ("plan", study_file(arms="[uniform, linear_decay]"), "--ledger", str(path), "--pilot", "sample")
    assert 0 < json.loads(run(*given, "--json").stdout)["minimum_detectable_nats"] < 1
    text = " ".join(run(*given).stdout.split())
    for words in (
        "is found with 80% power by 7 seeds.",
        "14 seeds find one of",
        "0.005 nats, this study's margin of equivalence, take",
        "Judged by the study sample in the ledger: standard deviation of its paired differences",
        "Its base model, data or test size is another",
    ):
        assert words in text, words


def test_a_pilot_that_does_not_exist_is_refused_before_anything_is_planned(study_file):
    result = run("plan", study_file(), "--pilot", "results/none")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--pilot results/none: there is no such folder" in " ".join(result.stderr.split())


def test_limits_shape_the_packs(study_file):
    file = study_file()
    single = json.loads(run("plan", file, "--max-pack", "1", "--json").stdout)
    assert single["num_packs"] == single["num_runs"]
    limit = json.loads(run("plan", file, "--json").stdout)["predicted"]["memory_bytes"] - 1
    limited = json.loads(run("plan", file, "--memory", str(limit), "--json").stdout)
    assert limited["predicted"]["memory_bytes"] <= limit
    assert limited["num_packs"] > 3


@pytest.mark.parametrize(
    ("change", "args", "words"),
    [
        ("", ("--memory", "1MB"), ["uniform (learning rate 0.001, seed 1000) alone needs", "--memory"]),
        ("", ("--memory", "much"), ["'much' is not a size"]),
        ("base: {model: /no/such/folder}\n", (), ["no folder /no/such/folder"]),
        ("data: {source: none.json}\n", (), ["no file none.json"]),
        ("targets: q_prj\n", (), ["q_prj", "q_proj"]),
        ("budget: {params: 10}\n", (), ["params 10 is below 40,960"]),
        ("sedes: 3\n", (), ["sedes", "seeds"]),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_paragraph(study_file, tmp_path, change, args, words):
    file = study_file()
    text = (tmp_path / "study.yaml").read_text()
    kept = [line for line in text.splitlines() if line.partition(":")[0] != change.partition(":")[0] or not change]
    (tmp_path / "study.yaml").write_text("\n".join(kept) + "\n" + change)
    result = run("plan", file, *args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert all(word in " ".join(result.stderr.split()) for word in words), result.stderr


def test_every_term_of_the_memory_prediction_is_explained():
    assert set(TERMS) == {field.name for field in fields(MemoryEstimate)}


def test_a_dynamic_arm_shows_what_it_stores_and_what_it_holds(study_file):
    file = study_file(
        arms="[uniform, {strategy: adalora, train: {epochs: 3}}, {strategy: elastic, train: {epochs: 3}}]"
    )
    result = run("plan", file)
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    for words in (
        "ranks scale params held unspent",
        "uniform 2 8 81,920 81,920 0",
        "adalora while training – ≤ 81,920 122,880 –",
        "elastic while training – ≤ 81,920 163,840 –",
        "Ranks of adalora, elastic move while training and end at the budget",
    ):
        assert words in text, words
    document = json.loads(run("plan", file, "--json").stdout)
    held = {r["arm"]: (r["budget_params"], r["held_params"], r["params"], r["moves_ranks"]) for r in document["runs"]}
    assert held["uniform"] == (81920, 81920, 81920, False)
    assert held["adalora"] == (81920, 122880, None, True)


def test_memory_is_planned_for_what_a_dynamic_arm_holds(study_file):
    def adapters(arms: str) -> dict[str, int]:
        document = json.loads(run("plan", study_file(arms=arms), "--json").stdout)
        return document["packs"][-1]["memory_terms"]

    uniform = adapters("[uniform]")
    wide = adapters("[{name: uniform, strategy: truncate, wide_factor: 2}]")
    gated = adapters("[{name: uniform, strategy: adalora, start_factor: 2, train: {epochs: 3}}]")
    assert wide["adapters_bytes"] == 2 * uniform["adapters_bytes"]
    assert wide["optimizer_bytes"] == 2 * uniform["optimizer_bytes"]
    assert gated["adapters_bytes"] == 2 * wide["adapters_bytes"], "gate x down is a tensor of its own"
    assert gated["optimizer_bytes"] == 2 * wide["optimizer_bytes"], "sensitivity and uncertainty of every weight"


@pytest.mark.parametrize("command", ["plan", "study"])
def test_runs_too_short_for_a_schedule_are_refused_before_anything_is_trained(study_file, command, tmp_path):
    result = run(command, study_file(arms="[uniform, {strategy: adalora}]"))
    assert result.exit_code == 2
    message = " ".join(result.output.split())
    assert "arm adalora (adalora): a run of 4 optimizer steps is too short for its schedule" in message
    assert "at least 5 steps are needed" in message
    assert "Traceback" not in message
    assert not list(tmp_path.rglob("adapter_model.safetensors"))


def test_a_start_that_a_dynamic_strategy_cannot_take_is_refused_on_its_line(study_file):
    result = run("plan", study_file(arms="[uniform, {strategy: elastic, init: gaussian}]"))
    assert result.exit_code == 2
    message = " ".join(result.output.split())
    assert 'study.yaml:8: arms[1].init is "gaussian": elastic draws singular triplets of its own' in message


def test_scales_and_initialisations_are_told_where_arms_differ_in_them(study_file):
    arms = (
        "[uniform, {name: strong, strategy: uniform, scaling: {rule: constant, scale: 3.5}}, "
        "{name: start, strategy: linear_decay, init: pissa}]"
    )
    result = run("plan", study_file(arms=arms))
    text = " ".join(result.stdout.split())
    assert "strong (uniform) kaiming 2 3.5 81,920" in text
    assert "start (linear_decay) pissa 1–3 5.33–16 " in text
    assert "All arms" not in text
    assert max(map(len, result.stdout.splitlines())) <= 80
