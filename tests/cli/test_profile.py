import json

from typer.testing import CliRunner

from rankwise.cli.main import app
from rankwise.cli.profile_tables import MEANINGS
from rankwise.execution.profile.values import TERMS

SMALL = ("--batch-size", "1", "--tokens", "16", "--new-tokens", "2", "--repeats", "1", "--dtype", "float32")


def run(*args: str):
    return CliRunner().invoke(app, ["profile", *args], env={"COLUMNS": "80"})


def test_json_and_files_tell_the_same_of_a_process_of_its_own(tmp_path):
    result = run("--model", "nano", "--rank", "1", *SMALL, "--json", "--out", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document == json.loads((tmp_path / "out" / "profile.json").read_text())
    assert list(document) == ["settings", "device", "threads", "num_params", "matmul_flops_per_s", "ranks"]
    (entry,) = document["ranks"]
    measured = entry["measured"]
    assert entry["error_frac"] == entry["predicted_bytes"] / measured["peak_bytes"] - 1
    assert abs(entry["error_frac"]) < 0.15
    assert sum(entry["predicted_terms"].values()) == entry["predicted_bytes"]
    assert entry["tokens_per_s"] == 16 / measured["step_s"]
    assert 0 < entry["peak_frac"] < 1
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "profile.json", "profile.png", "profile.pdf", "profile.csv",
    }  # fmt: skip
    rows = (tmp_path / "out" / "profile.csv").read_text().splitlines()
    assert rows[0] == "rank,quantity,part,predicted,measured,unit"
    assert len(rows) == 1 + len(TERMS) + 3 + 3 * 3


def test_gradient_checkpointing_is_said_counted_and_keeps_less():
    plain, again = (
        json.loads(run("--model", "nano", "--rank", "1", *SMALL, *more, "--json").stdout)
        for more in ((), ("--gradient-checkpointing",))
    )
    assert (plain["settings"]["gradient_checkpointing"], again["settings"]["gradient_checkpointing"]) == (False, True)
    (before,), (after,) = plain["ranks"], again["ranks"]
    for terms in ("predicted_terms", "measured"):
        kept = [
            entry[terms].get("activations", entry[terms].get("terms", {}).get("activations"))
            for entry in (before, after)
        ]
        assert kept[1] < 0.2 * kept[0]
    assert 1.2 * before["flops"] < after["flops"] < 1.5 * before["flops"]


def test_every_cause_is_explained():
    assert set(MEANINGS) == set(TERMS)


def test_bad_input_is_one_paragraph(tmp_path):
    for args, words in (
        (("--model", "nano", "--rank", "999"), "--rank 999 is not possible on nano"),
        (("--model", "nano", "--tokens", "999"), "--tokens 999 with 16 new tokens does not fit the context of nano"),
        (("--model", "nano", "--targets", "q_prj"), "did you mean q_proj"),
    ):
        result = run(*args, "--out", str(tmp_path / "out"))
        assert result.exit_code == 2
        assert words in " ".join(result.stderr.split())
        assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()
