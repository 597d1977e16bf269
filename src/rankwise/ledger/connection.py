"""Connecting to the database: its address, SQLite's settings, transactions, and errors as people can read them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from rankwise.errors import LedgerError

DEFAULT_URL = "sqlite:///rankwise.db"
BUSY_TIMEOUT_S = 60
"""How long a write waits for another process's write to end."""

_HINTS = {
    "not a database": "the file is not a ledger; name another one",
    "disk image is malformed": "the file is damaged; restore it from a copy",
    "disk is full": "the disk is full; make room and give the same command again",
    "readonly": "it cannot be written; change its permissions, or copy it to a folder that can be written",
    "unable to open": "it is a folder, or its folder is missing or cannot be written; make that, or name another place",
    "disk I/O error": "the disk refused to read or write; check its space and health, and give the same command again",
    "locked": f"another process has been writing for {BUSY_TIMEOUT_S} s; stop it, or give the same command again later",
    "connect": "check that the server is running and that host, user, password and database are right",
}
"""What to do, by a part of the database's own message."""


def parse_url(address: str) -> URL:
    """A path, `sqlite:///…` or `postgresql…://…` as a URL. Raises LedgerError for anything else."""
    if "://" not in address:
        return URL.create("sqlite", database=address)
    try:
        url = make_url(address)
    except (ArgumentError, ValueError) as error:
        raise LedgerError(f"ledger {address!r} is not a database URL ({error}). {_ALLOWED}") from error
    match url.get_backend_name():
        case "sqlite" if url.database not in (None, "", ":memory:"):
            return url
        case "postgresql" | "postgres":
            return url.set(drivername="postgresql+psycopg")
    raise LedgerError(f"ledger {url.render_as_string()!r} cannot be used. {_ALLOWED}")


_ALLOWED = "Give a path such as rankwise.db, sqlite:///PATH, or postgresql+psycopg://USER@HOST/DATABASE."


def connect(url: URL) -> Engine:
    """An engine whose transactions are real ones on SQLite, too. Nothing is opened yet."""
    try:
        if url.get_backend_name() != "sqlite":
            return create_engine(url, pool_pre_ping=True)
        engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S})
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise LedgerError(
            f"ledger {url.render_as_string()!r} needs psycopg, which is not installed: pip install 'rankwise[cluster]'."
        ) from error
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    # Python's sqlite3 would begin transactions late and by its own rules; `_begin_sqlite` does it instead.
    connection.isolation_level = None
    # In WAL mode NORMAL syncs only at checkpoints: a power cut may take the last commits, and with them finished runs.
    # FULL syncs each commit; fullfsync makes macOS empty the drive's own cache, too.
    for pragma in ("synchronous = FULL", "fullfsync = ON", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def use_write_ahead_log(engine: Engine) -> None:
    """Let readers go on while one process writes. SQLite stores the mode in the file, so once is enough."""
    if engine.dialect.name == "sqlite":
        with readable_errors(engine.url), closing(engine.raw_connection()) as connection:
            connection.cursor().execute("PRAGMA journal_mode = WAL")


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later cannot wait its turn (SQLite refuses it at once as a stale
    # snapshot), so writers take the lock when they begin.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def transaction(engine: Engine, *, writes: bool) -> Iterator[Connection]:
    """One transaction: all of it, or after any error none of it. Database errors arrive as LedgerError."""
    with readable_errors(engine.url), engine.execution_options(writes=writes).begin() as connection:
        yield connection


def upsert(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows of equal keys; one that is there already, by primary key, gets the new values."""
    if rows:
        insert = _insert(connection, table)
        keys = [column.name for column in table.primary_key]
        values = {name: insert.excluded[name] for name in rows[0] if name not in keys}
        connection.execute(insert.on_conflict_do_update(index_elements=keys, set_=values), rows)


def insert_missing(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows of equal keys; one that is there already, by primary key, stays as it is."""
    if rows:
        connection.execute(_insert(connection, table).on_conflict_do_nothing(), rows)


def _insert(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    return (postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert)(table)


@contextmanager
def readable_errors(url: URL) -> Iterator[None]:
    """Database errors as one paragraph: which ledger, what happened, what to do."""
    try:
        yield
    except SQLAlchemyError as error:
        cause = str(error.orig if isinstance(error, DBAPIError) else error).strip().splitlines()[0]
        hint = next((hint for part, hint in _HINTS.items() if part in cause), "nothing of this write was kept")
        raise LedgerError(f"ledger {describe(url)}: {cause}: {hint}.") from error


def describe(url: URL) -> str:
    """The ledger's place as people know it: the path of a file, or the URL without its password."""
    return str(Path(url.database or "")) if url.get_backend_name() == "sqlite" else url.render_as_string()
