import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from rankwise.cli.console import console
from rankwise.cli.run_comparison import paired_interval
from rankwise.cli.run_tables import sparkline
from rankwise.cli.runs import app
from rankwise.errors import LedgerError
from rankwise.ledger import open_ledger
from rankwise.records import RunAllocated
from rankwise.testing.sample_ledger import run_records, sample_runs, sample_study, write_sample

EVIL = "[bold red]pwned[/] \x1b[2J"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """The sample study's ledger; `uniform` is also in a second study."""
    path = tmp_path_factory.mktemp("runs") / "ledger.db"
    with open_ledger(str(path)) as ledger:
        write_sample(ledger)
        other = sample_study("other", arms=["uniform"])
        ledger.register_study(other, sample_runs(other))
    return path


@pytest.fixture
def call(path, monkeypatch):
    monkeypatch.setattr(console, "_width", 200)  # the environment's COLUMNS counts only when it is made

    def run(*arguments, ledger=path):
        result = CliRunner().invoke(app, [*arguments, "--ledger", str(ledger)])
        if result.exception:
            raise result.exception
        return result.stdout

    return run


def row_of(study, arm, seed, status="finished", purpose="report"):
    def matches(row):
        wanted = {"study": study, "arm": arm, "seed": seed, "status": status, "purpose": purpose}
        return all(row[name] == value for name, value in wanted.items())

    return matches


@pytest.fixture
def ids(call):
    """Id by (arm, seed) of the sample study's reported runs."""
    rows = json.loads(call("list", "--study", "sample", "--json"))
    return {(row["arm"], row["seed"]): row["id"] for row in rows if row["purpose"] == "report"}


def test_list_as_json_has_every_run_once_per_study(call):
    rows = json.loads(call("list", "--json"))
    assert [row["study"] for row in rows].count("sample") == 15
    assert [row["study"] for row in rows].count("other") == 5
    row = next(filter(row_of("sample", "linear_decay", 1), rows))
    assert set(row) == {
        *("id", "study", "arm", "purpose", "strategy", "learning_rate", "seed", "status", "params", "scores", "wall_s"),
        "peak_memory_bytes",
    }
    assert (row["strategy"], row["learning_rate"], row["params"], row["wall_s"]) == ("linear_decay", 1e-3, 128, 12.5)
    assert row["scores"]["test_perplexity"] == pytest.approx(math.exp(row["scores"]["test_loss"]))


def test_list_shows_what_is_missing_as_missing(call, ids):
    lines = {line.split()[0]: line for line in call("list", "--study", "sample").splitlines()}
    assert "finished" in lines[ids["uniform", 0]]
    assert "2.0001" in lines[ids["uniform", 0]]
    assert lines[ids["random", 2]].split()[-5:] == ["pending", "–", "–", "–", "–"]
    assert "diverged" in lines[ids["random", 0]]


def test_list_of_an_empty_ledger_says_so(call, tmp_path):
    with open_ledger(str(tmp_path / "empty.db")):
        pass
    assert "holds no runs yet" in call("list", ledger=tmp_path / "empty.db")
    assert json.loads(call("list", "--json", ledger=tmp_path / "empty.db")) == []


def test_show_is_the_audit(call, ids):
    text = call("show", ids["linear_decay", 0][:11])
    assert "sample / linear_decay (report)" in text
    sites = [line.split() for line in text.splitlines() if line.startswith("model.layers.")]
    assert [line[-10:] for line in sites] == [
        ["6", "6", "2.66667", "96", "1,", "2", "2,", "4", "6", "0"],
        ["2", "2", "8", "32", "1,", "2", "2,", "4", "2", "1"],
    ]
    for words in (
        "128 of 130 allowed, 2 left unspent",
        "1e-3",
        "rankwise study sample.yaml",
        "lowest 0.3750 at step 8",
        "what is stored was read back: 128 parameters",
        "0 loss spikes; 0 gradient spikes; largest step 0.224 at step 1",
        "probing with 200 MiB",
    ):
        assert words in text


def test_show_names_every_study_of_a_run(call, ids):
    assert "other / uniform (report); sample / uniform (report)" in call("show", ids["uniform", 0])


@pytest.mark.parametrize(
    ("seed", "words"),
    [(0, "diverged: step 5: the loss is not a number"), (1, "failed: OutOfMemoryError"), (2, "pending")],
)
def test_show_says_what_became_of_a_run(call, ids, seed, words):
    assert words in call("show", ids["random", seed])


def test_show_as_json_is_complete_and_valid(call, ids):
    document = json.loads(call("show", ids["random", 0], "--json"), parse_constant=pytest.fail)
    assert document["studies"] == [{"study": "sample", "arm": "random", "purpose": "report"}]
    assert document["training_curve"][-1] == {"step": 5, "value": None}
    assert [site["realised_rank"] for site in document["sites"]] == [3, 5]
    assert {site["stored_rank"] for site in document["sites"]} == {None}
    assert document["stability"]["traces"][0]["update_norms"] == {"attention.early": 0.2, "attention.late": 0.1}
    assert document["spec"]["arm"]["strategy"] == "random"
    assert document["environment"]["torch"] == "2.13.0"
    assert document["error"] == "step 5: the loss is not a number"


def test_show_as_json_has_the_whole_audit_of_each_site(call, ids):
    document = json.loads(call("show", ids["linear_decay", 0], "--json"))
    first, second = document["sites"]
    assert (first["planned_rank"], first["stored_rank"], first["revised_at"]) == (6, 6, [2, 4])
    assert (second["num_unmoved"], second["num_revisions"], second["lr_factor_up"]) == (1, 2, 2.0)
    assert document["revisions"] == [{"step": 2, "ranks": [5, 3]}, {"step": 4, "ranks": [6, 2]}]
    assert (document["stored_params"], document["held_params"]) == (128, 128)


def test_show_makes_a_rank_that_was_not_realised_stand_out(call, tmp_path):
    study = sample_study(arms=["uniform"])
    run = sample_runs(study)[0][0]
    allocated, *rest = run_records(run)
    sites = tuple(type(site)(**{**vars(site), "realised_rank": 3}) for site in allocated.sites)
    with open_ledger(str(tmp_path / "audit.db")) as ledger:
        ledger.register_study(study, sample_runs(study))
        ledger.write([RunAllocated(**{**vars(allocated), "sites": sites}), *rest])
    lines = [line.split() for line in call("show", run.id, ledger=tmp_path / "audit.db").splitlines()]
    assert [line[5:7] for line in lines if line and line[0].startswith("model.")] == [["4", "3"], ["4", "3"]]


def test_show_says_what_a_run_of_an_older_version_lacks(call, tmp_path):
    old = shutil.copy(Path(__file__).parents[1] / "ledger" / "assets" / "v1.sqlite", tmp_path / "old.db")
    rows = json.loads(call("list", "--json", ledger=old))
    finished = next(row["id"] for row in rows if row["status"] == "finished" and row["purpose"] == "report")
    text = call("show", finished, ledger=old)
    assert "not read back at its end" in text
    assert "never moved" not in text
    document = json.loads(call("show", finished, "--json", ledger=old))
    assert document["stability"]["traces"] == []
    assert document["sites"][0]["stored_rank"] is None


def test_compare_shows_only_the_settings_and_ranks_that_differ(call, ids):
    text = call("compare", ids["uniform", 0], ids["linear_decay", 0])
    lines = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    assert lines["arm.strategy"] == ["uniform", "linear_decay"]
    assert lines["model.layers.0.self_attn.q_proj"] == ["4", "(scale", "4)", "6", "(scale", "2.66667)"]
    assert "arm.dropout" not in text
    assert "settings are the same" in text


def test_compare_pairs_the_test_examples(call, path, ids):
    first, second = ids["uniform", 0], ids["linear_decay", 0]
    with open_ledger(str(path)) as ledger:
        one, other = ledger.run(first), ledger.run(second)
    difference = other.scores["test_loss"] - one.scores["test_loss"]
    text = call("compare", first, second)
    assert f"{second} minus {first}  {difference:+.4f}".replace("-", "−") in text
    num_lower = int((other.example_loss_nats < one.example_loss_nats).sum())
    assert f"{num_lower} examples {second}, {6 - num_lower} {first}" in text


def test_a_run_compared_with_itself_differs_in_nothing(call, ids):
    text = call("compare", ids["uniform", 0], ids["uniform", 0])
    assert "The same rank and scale at all 2 sites." in text
    assert "0.0000 nats per answer token" in text


def test_compare_does_not_pair_what_was_not_scored(call, ids):
    assert "both runs must have finished" in call("compare", ids["uniform", 0], ids["random", 1])


def test_compare_does_not_pair_other_examples(call, tmp_path):
    study = sample_study(arms=["uniform"])
    (run, _) = sample_runs(study)[-1]
    other = run.model_copy(update={"data_fingerprint": "other data"})
    with open_ledger(str(tmp_path / "data.db")) as ledger:
        ledger.register_study(study, [(run, "report"), (other, "report")])
        ledger.write(run_records(run) + run_records(other))
    text = call("compare", run.id, other.id, ledger=tmp_path / "data.db")
    assert "scored on different examples" in text
    assert "other data" in text


def test_compare_of_a_study_is_its_arms_against_the_baseline(call):
    lines = {line.split()[0]: line for line in call("compare", "sample").splitlines() if line.strip()}
    assert "baseline" in lines["uniform"]
    assert "3 of 3" in lines["linear_decay"]
    assert "undecided" in lines["linear_decay"]
    assert "0 of 3" in lines["random"]


def test_the_interval_of_one_token_examples_is_students():
    difference_E = np.random.default_rng(0).normal(size=40)
    mean, half = paired_interval(difference_E, np.ones(40))
    low, high = stats.ttest_1samp(difference_E, 0).confidence_interval(0.95)
    np.testing.assert_allclose([mean - half, mean + half], [low, high])


def test_the_interval_covers_a_ratio_of_unequal_examples_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        tokens_E = rng.integers(1, 40, size=100)
        mean, half = paired_interval(0.05 * tokens_E + rng.normal(size=100) * np.sqrt(tokens_E), tokens_E)
        covered += abs(mean - 0.05) <= half
    assert 0.92 <= covered / 400 <= 0.98


def test_a_sparkline_falls_with_its_values():
    assert sparkline([3.0, 2.0, 1.0]) == "█▅▁"
    assert sparkline([1.0]) == "▁"
    assert len(sparkline(np.linspace(5, 1, 1000))) == 60


@pytest.mark.parametrize("command", [["list"], ["list", "--json"], ["show", "3f"], ["compare", "sample"]])
def test_a_missing_ledger_is_refused_and_not_made(call, tmp_path, command):
    with pytest.raises(LedgerError, match=r"absent\.db: there is no such file"):
        call(*command, ledger=tmp_path / "absent.db")
    assert not (tmp_path / "absent.db").exists()


def test_unknown_names_are_refused_with_what_there_is(call):
    with pytest.raises(LedgerError, match=r"no study 'smaple'; it holds other, sample"):
        call("list", "--study", "smaple")
    with pytest.raises(LedgerError, match=r"no run's id begins with 'zz'"):
        call("show", "zz")


def test_text_from_a_file_steers_no_terminal(call, tmp_path, monkeypatch):
    study = sample_study(arms=["uniform"])
    evil = study.model_copy(update={"arms": (study.arms[0].model_copy(update={"name": EVIL}),)})
    runs = sample_runs(evil)
    ledger_path = tmp_path / "evil.db"
    with open_ledger(str(ledger_path)) as ledger:
        ledger.register_study(evil, runs)
        ledger.set_environment("sample", {EVIL: EVIL})
        ledger.claim([run.id for run, _ in runs], "machine:1:0")
        ledger.mark_failed(runs[-1][0].id, EVIL)
    commands = (["list"], ["show", runs[-1][0].id], ["compare", runs[-1][0].id, runs[-2][0].id])
    for command in commands:
        text = call(*command, ledger=ledger_path)
        assert "\x1b" not in text
        assert "[bold red]pwned[/]" in text


def test_show_has_the_answers_that_are_asked_for(call, ids):
    text = call("show", ids["uniform", 1], "--examples", "2")
    assert "What is 1 + 1?" in text
    assert "What is 2 + 1?" not in text
    assert "What is" not in call("show", ids["uniform", 1])
    document = json.loads(call("show", ids["uniform", 1], "--examples", "6", "--json"))
    assert [answer["exact_match"] for answer in document["examples"]] == [False, True] * 3
    assert document["scores"]["test_exact_match"] == 0.5
    assert document["examples"][3]["loss_nats"] > 0


def test_show_says_where_answers_are_missing(call, ids):
    with pytest.raises(LedgerError, match=r"has no answers to show.*evaluate: \{generate: true\}"):
        call("show", ids["random", 0], "--examples", "2")
