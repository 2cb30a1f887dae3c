"""How many rows statements read, by PostgreSQL's own account."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, event


@contextmanager
def reading(engine: Engine, part: str) -> Iterator[list[float]]:
    """Rows that each node of their plans comes by, of the statements with `part` in them that are executed within."""
    read: list[float] = []

    def explain(connection: Connection, _: object, statement: str, values: Any, *__: object) -> None:
        if part in statement:
            cursor: Any = connection.connection.cursor()
            cursor.execute(f"explain (analyze, format json) {statement}", values)
            read.extend(rows_read(cursor.fetchone()[0][0]["Plan"]))

    event.listen(engine, "before_cursor_execute", explain)
    try:
        yield read
    finally:
        event.remove(engine, "before_cursor_execute", explain)


def rows_read(node: dict[str, Any]) -> Iterator[float]:
    """Of each node of a plan: the rows it hands on, and those that it passes over."""
    passed_over = sum(value for name, value in node.items() if name.startswith("Rows Removed"))
    yield (node["Actual Rows"] + passed_over) * node["Actual Loops"]
    for part in node.get("Plans", ()):
        yield from rows_read(part)
