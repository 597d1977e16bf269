"""An empty ledger on SQLite, and on PostgreSQL too where RANKWISE_TEST_POSTGRES names a database to be emptied."""

import os

import pytest
import sqlalchemy

from rankwise.ledger import open_ledger
from rankwise.testing.sample_ledger import sample_runs, sample_study


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return str(tmp_path / "ledger.db")
    if not (address := os.environ.get("RANKWISE_TEST_POSTGRES")):
        pytest.skip("no PostgreSQL: RANKWISE_TEST_POSTGRES names no database that may be emptied")
    engine = sqlalchemy.create_engine(address)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("DROP SCHEMA public CASCADE"))
        connection.execute(sqlalchemy.text("CREATE SCHEMA public"))
    engine.dispose()
    return address


@pytest.fixture
def ledger(url):
    with open_ledger(url) as opened:
        yield opened


@pytest.fixture
def study():
    return sample_study()


@pytest.fixture
def runs(study):
    return sample_runs(study)


@pytest.fixture
def registered(ledger, study, runs):
    """The ledger, with the sample study and its runs registered."""
    ledger.register_study(study, runs)
    return ledger
