"""A study that asks for answers and forgetting: the ledger then holds what `rankwise evaluate` says of its adapters."""

from dataclasses import replace

import pytest
from typer.testing import CliRunner

from rankwise.cli.main import app
from rankwise.data.general import GENERAL, load_general
from rankwise.data.prepare import prepare_data
from rankwise.evaluation.held_out import answer_examples, score_examples
from rankwise.execution.load_adapted import load_adapted
from rankwise.execution.run_study import run_study
from rankwise.execution.study_options import StudyOptions
from rankwise.ledger import open_ledger
from rankwise.study import parse_study
from tests.models.conftest import save_tiny_model

STUDY = """
name: measured
hypothesis: Answers are kept.
data: {train: 8, validation: 2, test: 6}
budget: {rank: 2}
scaling: {rule: constant, scale: 2.0}
train: {epochs: 1, batch_size: 4, learning_rates: [1.0e-2]}
evaluate: {generate: true, forgetting: true}
arms: [uniform]
seeds: 1
"""


TOLD = ("one", "two", "three")


def few_passages(source, tokenizer, *, max_tokens):
    """The first four, which is quicker."""
    found = load_general(source, tokenizer, max_tokens=max_tokens)
    return replace(found, passages=found.passages[:4])


def test_answers_and_forgetting_are_in_the_ledger(tmp_path, monkeypatch):
    monkeypatch.setattr("rankwise.training.allocate.load_general", few_passages)
    study = parse_study(STUDY, origin="study.yaml")
    with open_ledger(str(tmp_path / "ledger.db")) as ledger:
        [run] = run_study(study, ledger, StudyOptions(out=tmp_path / "out")).reported("uniform")
        answers = ledger.answers(run.id)
    base, _ = load_adapted(str(tmp_path / "out" / "adapters" / run.id))
    data = prepare_data(study.arms[0].data, base.tokenizer)
    [written] = answer_examples(base, None, (None,), data.test)
    assert [answer.written for answer in answers] == [answer.text for answer in written]
    assert [answer.expected for answer in answers] == [example.output for example in data.examples["test"]]
    assert run.scores["test_exact_match"] == sum(answer.exact_match for answer in answers) / 6
    general = few_passages(GENERAL, base.tokenizer, max_tokens=256)
    [after] = score_examples(base, None, (None,), general.passages)
    expected = after.loss_nats_E.sum() / after.answer_tokens_E.sum()
    assert run.scores["general_loss"] == pytest.approx(expected, rel=1e-5)
    assert run.scores["forgetting"] == run.scores["general_loss"] - run.scores["initial_general_loss"]
    assert abs(run.scores["forgetting"]) > 1e-3


@pytest.mark.parametrize("command", ["plan", "study"])
def test_forgetting_on_a_model_that_takes_no_passage_whole_is_refused_before_training(tmp_path, command):
    model = save_tiny_model(tmp_path / "model")
    words = tmp_path / "words.txt"
    words.write_text("\n\n".join(f"{a} {b} {c}" for a in TOLD for b in TOLD for c in TOLD))
    study = STUDY.replace(
        "data: {", f"base: {{model: {model}}}\ndata: {{source: {words}, template: plain, max_tokens: 16, "
    )
    (tmp_path / "study.yaml").write_text(study)
    out = [] if command == "plan" else ["--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [command, str(tmp_path / "study.yaml"), *out])
    assert result.exit_code == 2, result.output
    assert "evaluate.forgetting: true cannot be done on" in " ".join(result.output.split())
    assert "which takes 16 tokens" in " ".join(result.output.split())
    assert not [path for path in tmp_path.joinpath("out").rglob("*") if path.is_dir()], (
        "neither adapters nor checkpoints"
    )
