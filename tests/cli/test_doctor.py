import copy
import json

import pytest
from typer.testing import CliRunner

from rankwise.cli.doctor import advise
from rankwise.cli.main import app

HEALTHY = {
    "host": {"allocator_keeps_freed_memory": True},
    "speed_gflops": {"cpu": {"float32": 100.0, "bfloat16": 400.0}},
    "embedded_model": {"usable": True},
    "results": {"ledger_writable": True},
}


def doctor(*args: str):
    result = CliRunner().invoke(app, ["doctor", *args])
    assert result.exit_code == 0, result.output
    return result


def test_json_is_one_document_with_measured_speeds():
    findings = json.loads(doctor("--json").stdout)
    assert findings["speed_gflops"]["cpu"]["float32"] > 0
    assert findings["speed_gflops"]["cpu"]["bfloat16"] > 0
    assert findings["host"]["usable_cores"] >= 1
    assert findings["results"]["ledger_writable"] is True


def test_the_table_names_the_same_groups():
    text = doctor().stdout
    for words in ("software", "speed gflops", "embedded model", "ledger writable", "GiB"):
        assert words in text


def test_a_password_in_the_ledger_url_is_not_shown():
    result = doctor("--json", "--ledger", "postgresql+psycopg://me:secret@host/rankwise")
    assert "secret" not in result.stdout
    assert json.loads(result.stdout)["results"]["ledger"].startswith("postgresql+psycopg://me:***@host")


def test_an_unwritable_ledger_is_reported(tmp_path):
    result = doctor("--json", "--ledger", str(tmp_path / "missing" / "rankwise.db"))
    assert json.loads(result.stdout)["results"]["ledger_writable"] is False


@pytest.mark.parametrize(
    ("group", "key", "value", "word"),
    [
        ("speed_gflops", "cpu", {"float32": 100.0, "bfloat16": 2.0}, "use float32"),
        ("host", "allocator_keeps_freed_memory", False, "slower"),
        ("embedded_model", "usable", False, "--model"),
        ("results", "ledger_writable", False, "--ledger"),
    ],
)
def test_each_weakness_gets_its_advice(group, key, value, word):
    assert not any(word in line for line in advise(HEALTHY))
    ill = copy.deepcopy(HEALTHY)
    ill[group][key] = value
    assert any(word in line for line in advise(ill))
