import sys

import pytest
import sqlalchemy
from sqlalchemy.exc import OperationalError

from rankwise.errors import LedgerError
from rankwise.ledger import open_ledger
from rankwise.ledger.connection import parse_url


@pytest.fixture
def no_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("RANKWISE_LEDGER", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_an_address_it_is_in_the_working_directory(no_environment):
    with open_ledger():
        assert (no_environment / "rankwise.db").is_file()


@pytest.mark.parametrize("form", ["{path}", "sqlite:///{path}"])
def test_the_environment_names_it_as_a_path_or_a_url(no_environment, monkeypatch, form):
    path = no_environment / "elsewhere.db"
    monkeypatch.setenv("RANKWISE_LEDGER", form.format(path=path))
    with open_ledger() as ledger:
        assert path.is_file()
        assert ledger.place == str(path)


def test_every_commit_reaches_the_disk_and_readers_go_on_while_one_writes(tmp_path):
    with open_ledger(str(tmp_path / "ledger.db")) as ledger, ledger._read() as connection:
        pragma = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in PRAGMAS}
    assert pragma == PRAGMAS


PRAGMAS = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 60_000}


def test_closing_leaves_one_file(tmp_path):
    with open_ledger(str(tmp_path / "ledger.db")):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["ledger.db"]


def test_a_reading_command_makes_no_ledger(tmp_path):
    with pytest.raises(LedgerError, match=r"absent\.db: there is no such file\. .*--ledger"):
        open_ledger(str(tmp_path / "absent.db"), create=False)
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_a_database_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "notes.db"
    path.write_text("These are my notes.\n" * 100)
    with pytest.raises(LedgerError, match=r"notes\.db: file is not a database: .*name another one"):
        open_ledger(str(path))
    assert path.read_text() == "These are my notes.\n" * 100


def test_another_programs_database_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "photos.db"
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE photos (name TEXT)")
    engine.dispose()
    before = path.read_bytes()
    with pytest.raises(LedgerError, match=r"photos\.db: it holds tables that are not a ledger's \(photos\)"):
        open_ledger(str(path))
    assert path.read_bytes() == before


@pytest.mark.parametrize("place", ["absent/ledger.db", "."])
def test_a_missing_folder_or_a_folder_in_its_place_is_refused(tmp_path, place):
    with pytest.raises(LedgerError, match="unable to open database file: it is a folder, or its folder is missing"):
        open_ledger(str(tmp_path / place))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is a folder that even root cannot write in")
def test_a_folder_that_cannot_be_written_is_refused():
    with pytest.raises(LedgerError, match=r"ledger /proc/ledger\.db: unable to open .* cannot be written"):
        open_ledger("/proc/ledger.db")


def test_a_file_that_cannot_be_written_can_be_read(tmp_path, study, runs, monkeypatch):
    """Root may write anything, so the file is opened the way SQLite opens one without the permission: `mode=ro`."""
    path = tmp_path / "ledger.db"
    with open_ledger(str(path)) as ledger:
        ledger.register_study(study, runs)
    with open_ledger(f"sqlite:///file:{path}?mode=ro&uri=true") as ledger:
        assert len(ledger.study_results("sample").runs) == len(runs)
        with pytest.raises(LedgerError, match="attempt to write a readonly database: it cannot be written; change"):
            ledger.register_study(study, runs)


@pytest.mark.parametrize("address", ["sqlite://", "sqlite:///:memory:", "mysql://host/db", "nonsense://", "://"])
def test_other_addresses_are_refused_with_those_that_are_allowed(address):
    with pytest.raises(LedgerError, match=r"ledger .* Give a path such as rankwise\.db, sqlite:///PATH, or postgresql"):
        open_ledger(address)


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg"])
def test_postgresql_without_its_driver_names_the_extra(monkeypatch, scheme):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(LedgerError, match=r"me:\*\*\*@host/db' needs psycopg.*rankwise\[cluster\]") as caught:
        open_ledger(f"{scheme}://me:secret@host/db")
    assert "secret" not in str(caught.value)


def test_postgresql_always_uses_the_driver_of_the_extra():
    assert parse_url("postgresql://host/db").drivername == "postgresql+psycopg"


def test_any_other_trouble_of_the_database_is_one_paragraph(tmp_path, study, runs, monkeypatch):
    with open_ledger(str(tmp_path / "ledger.db")) as ledger:

        def refuse(*_args):
            raise OperationalError("INSERT", {}, Exception("disk I/O error\nat page 7"))

        monkeypatch.setattr("rankwise.ledger.studies.insert_missing", refuse)
        with pytest.raises(LedgerError, match=r"^ledger .*ledger\.db: disk I/O error: the disk refused .*$"):
            ledger.register_study(study, runs)
        monkeypatch.undo()
        assert ledger.study_names() == []
