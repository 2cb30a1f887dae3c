"""The schema's history, run by `imgpipe migrate` and at every start of `imgpipe up`.

Revisions are plain SQL where that reads better than the builder. Each feature's tables have their own revision.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Engine, text

if TYPE_CHECKING:
    from alembic.config import Config

_LOCK = 0x1A6717E
"""Advisory lock of PostgreSQL under which migrations run: two processes starting at once must not both migrate."""


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    return config


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Bring the database of `engine` to `revision`, whatever it is at; safe to call from several processes."""
    from alembic import command

    config = _config()
    with engine.begin() as connection:
        connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def pending(engine: Engine) -> list[str]:
    """Revisions the database lacks, oldest first; empty when it is up to date."""
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    script = ScriptDirectory.from_config(_config())
    with engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_heads()
    known = {revision.revision for head in current for revision in script.iterate_revisions(head, "base")}
    return [r.revision for r in reversed(list(script.walk_revisions())) if r.revision not in known]
