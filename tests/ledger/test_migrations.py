"""Every released schema version stays readable: one file per version lies in `assets`."""

import re
import shutil
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy import insert, inspect, select, text

from rankwise.errors import LedgerError
from rankwise.ledger import migrations, open_ledger
from rankwise.ledger.schema import SCHEMA_MIGRATIONS

CURRENT = [
    (1, "create_tables"),
    (2, "add_outcomes_and_traces"),
    (3, "add_answers"),
    (4, "add_quantization_errors"),
    (5, "add_predictions"),
    (6, "add_signals"),
    (7, "add_benchmarks"),
]
ASSETS = sorted((Path(__file__).parent / "assets").glob("v*.sqlite"))


def table_shapes(ledger):
    with ledger._read() as connection:
        inspector = inspect(connection)
        return {
            table: {
                "columns": {(c["name"], str(c["type"]), c["nullable"]) for c in inspector.get_columns(table)},
                "key": inspector.get_pk_constraint(table)["constrained_columns"],
                "indexes": {(i["name"], *i["column_names"]) for i in inspector.get_indexes(table)},
                "foreign": {
                    (*k["constrained_columns"], k["referred_table"]) for k in inspector.get_foreign_keys(table)
                },
            }
            for table in inspector.get_table_names()
        }


def recorded(ledger):
    with ledger._read() as connection:
        rows = connection.execute(select(SCHEMA_MIGRATIONS).order_by(SCHEMA_MIGRATIONS.c.version))
        return [(row.version, row.name) for row in rows]


@pytest.fixture(params=ASSETS, ids=lambda path: path.stem)
def old_ledger(request, tmp_path):
    return shutil.copy(request.param, tmp_path / "ledger.db")


def test_there_is_a_file_of_every_version():
    versions = sorted(int(re.fullmatch(r"v(\d+)", path.stem)[1]) for path in ASSETS)
    assert versions == list(range(1, len(migrations.MIGRATIONS) + 1))


def test_an_old_ledger_has_the_tables_of_a_new_one(old_ledger, tmp_path):
    with open_ledger(str(old_ledger)) as old, open_ledger(str(tmp_path / "new.db")) as new:
        assert table_shapes(old) == table_shapes(new)
        assert recorded(old) == recorded(new) == CURRENT


def test_an_old_ledger_is_read(old_ledger):
    with open_ledger(str(old_ledger)) as ledger:
        results = ledger.study_results("sample")
        unfinished = {run.seed: run for run in results.reported("random")}
        assert ledger.environment_of(results.runs[0].id)["torch"] == "2.13.0"
    assert results.arm_names == ("uniform", "linear_decay", "random")
    assert [run.status for run in results.runs].count("finished") == 12
    uniform = results.reported("uniform")[0]
    assert uniform.scores["test_loss"] == 2.000070439100243
    assert uniform.example_loss_nats.sum() / uniform.example_answer_tokens.sum() == uniform.scores["test_loss"]
    assert [site.realised_rank for site in uniform.sites] == [4, 4]
    assert len(uniform.training_curve) == 8
    assert unfinished[0].error == "step 5: the loss is not a number"
    assert unfinished[1].error == "OutOfMemoryError: 43.1 GiB wanted"
    assert unfinished[2].status == "pending"


def test_what_an_old_ledger_never_measured_is_missing(tmp_path):
    path = shutil.copy(ASSETS[0], tmp_path / "ledger.db")
    with open_ledger(str(path)) as ledger:
        run = ledger.study_results("sample").reported("uniform")[0]
    assert (run.outcomes, run.revisions, run.traces) == ((), (), ())
    assert (run.stored_params, run.held_params, run.probe_peak_memory_bytes) == (None, None, None)
    assert (run.predicted_wall_s, run.micro_tokens, run.pack_id) == (None, None, None)
    assert run.signal is None
    assert {site.signal for site in run.sites} == {None}
    assert {(site.lr_factor_down, site.lr_factor_up) for site in run.sites} == {(1.0, 1.0)}
    assert len(run.grad_norm_curve) == 8  # stored since the first version
    assert not {"test_calibration_error", "test_exact_match", "forgetting"} & run.scores.keys()


def test_questions_and_answers_are_read(tmp_path):
    path = shutil.copy(ASSETS[2], tmp_path / "ledger.db")
    with open_ledger(str(path)) as ledger:
        run = ledger.study_results("sample").reported("uniform")[1]
        answers = ledger.answers(run.id)
    assert [answer.exact_match for answer in answers] == [False, True] * 3
    assert (answers[3].question, answers[3].expected, answers[3].written) == ("What is 3 + 1?", "4", "4")
    assert sum(answer.loss_nats for answer in answers) == pytest.approx(run.example_loss_nats.sum())
    assert (run.scores["test_exact_match"], run.scores["test_calibration_error"]) == (0.5, 0.125)
    assert run.scores["forgetting"] == run.scores["general_loss"] - run.scores["initial_general_loss"]


def test_predictions_are_read(tmp_path):
    path = shutil.copy(ASSETS[4], tmp_path / "ledger.db")
    with open_ledger(str(path)) as ledger:
        run = ledger.study_results("sample").reported("uniform")[1]
    assert (run.predicted_wall_s, run.micro_tokens, run.pack_id) == (11.0, 2048, "0123456789abcdef")


def test_signals_are_read(tmp_path):
    path = shutil.copy(ASSETS[5], tmp_path / "ledger.db")
    with open_ledger(str(path)) as ledger:
        results = ledger.study_results("sample")
    measured, plain = results.reported("linear_decay")[0], results.reported("uniform")[0]
    assert measured.signal == "RMS gradient (nats per unit weight)"
    assert [site.signal for site in measured.sites] == [0.75, 0.25]
    assert (plain.signal, [site.signal for site in plain.sites]) == (None, [None, None])


def add_notes(connection):
    connection.execute(text("ALTER TABLE studies ADD COLUMN notes TEXT"))


def break_off(connection):
    add_notes(connection)
    raise sqlalchemy.exc.OperationalError("ALTER", {}, Exception("disk I/O error"))


def test_opening_applies_what_is_missing_once_and_keeps_the_rest(old_ledger, monkeypatch):
    monkeypatch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, add_notes))
    for _ in range(2):
        with open_ledger(str(old_ledger)) as ledger:
            assert recorded(ledger) == [*CURRENT, (len(CURRENT) + 1, "add_notes")]
            assert "notes" in {name for name, _, _ in table_shapes(ledger)["studies"]["columns"]}
            assert ledger.study_names() == ["sample"]


def test_a_migration_that_breaks_off_leaves_the_ledger_as_it_was(old_ledger, monkeypatch):
    with open_ledger(str(old_ledger)) as ledger:
        before = table_shapes(ledger)
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, break_off))
        with pytest.raises(LedgerError, match="disk I/O error"):
            open_ledger(str(old_ledger))
    with open_ledger(str(old_ledger)) as ledger:
        assert table_shapes(ledger) == before
        assert recorded(ledger) == CURRENT


def test_a_ledger_of_a_newer_version_is_refused_and_left_alone(url):
    with open_ledger(url) as ledger, ledger._write() as connection:
        connection.execute(insert(SCHEMA_MIGRATIONS).values(version=99, name="from_the_future", applied_at=0.0))
    with pytest.raises(LedgerError, match=rf"version 99, written by a newer Rankwise; .* to {len(CURRENT)}\. Nothing"):
        open_ledger(url)
