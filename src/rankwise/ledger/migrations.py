"""Bringing a database to the current schema: named functions, each applied once and recorded in `schema_migrations`.

The first one makes the tables of `schema.py` in an empty database, whatever their version; later ones change the
tables of an older database. A test opens a file of every released version and compares its tables with a new one's.
"""

import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Connection,
    Double,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    inspect,
    select,
    text,
)
from sqlalchemy.types import TypeEngine

from rankwise.errors import LedgerError
from rankwise.ledger.connection import describe
from rankwise.ledger.schema import METADATA, SCHEMA_MIGRATIONS


def create_tables(connection: Connection) -> None:
    METADATA.create_all(connection)


def add_outcomes_and_traces(connection: Connection) -> None:
    """Version 2: learning-rate factors, what a probe needed, what was stored, revisions, and traces of each step.

    The tables are written out here, because those of `schema.py` go on to later versions.
    """
    for name in ("probe_peak_memory_bytes", "stored_params", "held_params"):
        _add_column(connection, "runs", name, BigInteger())
    for name in ("lr_factor_down", "lr_factor_up"):
        _add_column(connection, "allocations", name, Double(), "DEFAULT 1.0 NOT NULL")
    version_2 = MetaData()
    Table("runs", version_2, Column("id", String(64), primary_key=True))  # what the keys refer to
    new = (
        Table(
            "outcomes", version_2, *_key("position"), Column("site", Text, nullable=False),
            Column("rank", Integer, nullable=False), Column("scale", Double, nullable=False),
            Column("params", BigInteger, nullable=False), Column("num_unmoved", Integer, nullable=False),
            Column("num_revisions", Integer, nullable=False),
        ),
        Table("revisions", version_2, *_key("step"), Column("ranks", JSON, nullable=False), sqlite_with_rowid=False),
        Table(
            "traces", version_2, *_key("step", "position"), Column("site_group", String(40), nullable=False),
            Column("grad_norm", Double), Column("update_norm", Double), Column("weight_norm", Double),
            sqlite_with_rowid=False,
        ),
    )  # fmt: skip
    version_2.create_all(connection, tables=new, checkfirst=False)


def add_answers(connection: Connection) -> None:
    """Version 3: calibration error of each evaluation, and the answers that runs wrote to which questions."""
    _add_column(connection, "evaluations", "calibration_error", Double())
    version_3 = MetaData()
    Table("runs", version_3, Column("id", String(64), primary_key=True))
    questions = Table(
        "questions", version_3, Column("data_fingerprint", String(64), primary_key=True),
        Column("split", String(16), primary_key=True),
        Column("position", Integer, primary_key=True, autoincrement=False), Column("question", Text, nullable=False),
        Column("expected", Text, nullable=False), sqlite_with_rowid=False,
    )  # fmt: skip
    run_id, step, position = _key("step", "position")
    answers = Table(
        "answers", version_3, run_id, Column("split", String(16), primary_key=True), step, position,
        Column("data_fingerprint", String(64), nullable=False), Column("written", Text, nullable=False),
        Column("num_tokens", Integer, nullable=False), Column("exact_match", Integer, nullable=False),
        Column("rouge_l", Double, nullable=False), Column("chrf", Double, nullable=False), sqlite_with_rowid=False,
    )  # fmt: skip
    version_3.create_all(connection, tables=(questions, answers), checkfirst=False)


def add_quantization_errors(connection: Connection) -> None:
    """Version 4: what quantizing a base changed at each of its layers."""
    _add_column(connection, "studies", "quantization_errors", JSON())


def add_predictions(connection: Connection) -> None:
    """Version 5: the time that was predicted of each run, the size of its passes, and which pack it trained in."""
    _add_column(connection, "runs", "predicted_wall_s", Double())
    _add_column(connection, "runs", "micro_tokens", Integer())
    _add_column(connection, "runs", "pack_id", String(16))


def add_signals(connection: Connection) -> None:
    """Version 6: what a strategy went by at each site, and what that is."""
    _add_column(connection, "runs", "signal", Text())
    _add_column(connection, "allocations", "signal", Double())


def add_benchmarks(connection: Connection) -> None:
    """Version 7: what lm-evaluation-harness said of adapters and of the base alone."""
    _add_column(connection, "studies", "base_benchmarks", JSON())
    version_7 = MetaData()
    Table("runs", version_7, Column("id", String(64), primary_key=True))
    run_id, *_ = _key()
    benchmarks = Table(
        "benchmarks", version_7, run_id, Column("benchmark", String(120), primary_key=True),
        Column("task", String(120), primary_key=True), Column("metric", String(80), primary_key=True),
        Column("filter", String(80), primary_key=True), Column("value", Double), Column("stderr", Double),
        Column("num_examples", BigInteger, nullable=False), Column("fingerprint", String(64), nullable=False),
        Column("harness", String(32), nullable=False),
    )  # fmt: skip
    version_7.create_all(connection, tables=(benchmarks,), checkfirst=False)


def _add_column(connection: Connection, table: str, name: str, kind: TypeEngine[Any], rest: str = "") -> None:
    type_name = kind.compile(dialect=connection.dialect)
    connection.execute(text(f"ALTER TABLE {table} ADD COLUMN {name} {type_name} {rest}"))


def _key(*names: str) -> tuple[Column[Any], ...]:
    """The run and whole numbers that count within it."""
    run_id: Column[Any] = Column("run_id", String(64), ForeignKey("runs.id"), primary_key=True)
    return run_id, *(Column(name, Integer, primary_key=True, autoincrement=False) for name in names)


MIGRATIONS: tuple[Callable[[Connection], None], ...] = (
    create_tables,
    add_outcomes_and_traces,
    add_answers,
    add_quantization_errors,
    add_predictions,
    add_signals,
    add_benchmarks,
)
"""Version n is the database after the first n of them."""


def is_current(connection: Connection) -> bool:
    """Whether nothing is left to do. Raises LedgerError for a newer version and for another program's database."""
    return _version(connection) == len(MIGRATIONS)


def migrate(connection: Connection) -> None:
    """Apply what is missing, inside the caller's transaction: after an error the database is as it was."""
    if connection.dialect.name == "postgresql":
        # SQLite's write transaction already keeps a second process out; here two could create tables at once.
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('rankwise.schema_migrations'))"))
    version = _version(connection)
    for migration in MIGRATIONS[version:] if version else MIGRATIONS[:1]:
        migration(connection)
    records = [
        {"version": number, "name": migration.__name__, "applied_at": time.time()}
        for number, migration in enumerate(MIGRATIONS, start=1)
        if number > version
    ]
    if records:
        connection.execute(SCHEMA_MIGRATIONS.insert(), records)


def _version(connection: Connection) -> int:
    """0 for an empty database."""
    place = describe(connection.engine.url)
    tables = inspect(connection).get_table_names()
    if SCHEMA_MIGRATIONS.name not in tables:
        if tables:
            raise LedgerError(
                f"ledger {place}: it holds tables that are not a ledger's ({', '.join(sorted(tables)[:3])}). Nothing "
                "was changed; name another file or database."
            )
        return 0
    versions = connection.scalars(select(SCHEMA_MIGRATIONS.c.version)).all()
    version = max(versions, default=0)
    if version > len(MIGRATIONS):
        raise LedgerError(
            f"ledger {place}: it has schema version {version}, written by a newer Rankwise; this one reads versions up "
            f"to {len(MIGRATIONS)}. Nothing was changed; install the newer Rankwise, or name another ledger."
        )
    return version
