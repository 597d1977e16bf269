"""Bringing a database to the current schema: named functions, each applied once and recorded in `schema_migrations`.

The first one makes the tables of `schema.py` in an empty database, whatever their version; later ones change the
tables of an older database. A test opens a file of every released version and compares its tables with a new one's.
"""

import time
from collections.abc import Callable

from sqlalchemy import Connection, inspect, select, text

from rankwise.errors import LedgerError
from rankwise.ledger.connection import describe
from rankwise.ledger.schema import METADATA, SCHEMA_MIGRATIONS


def create_tables(connection: Connection) -> None:
    METADATA.create_all(connection)


MIGRATIONS: tuple[Callable[[Connection], None], ...] = (create_tables,)
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
