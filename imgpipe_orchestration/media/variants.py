"""The manifest of an image: the rows of its variants."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Connection, text

if TYPE_CHECKING:
    from imgpipe_orchestration.imaging.encoding.encode_all import Variant


class StoredVariant(NamedTuple):
    """One row of `media_variants`: a file in the media bucket."""

    size: str
    format: str
    background: str
    width: int
    height: int
    bytes: int
    sha256: str
    object_key: str


COLUMNS = ", ".join(f"v.{name}" for name in StoredVariant._fields)

_FACTS = text("""
    update media_files set library_path = :library_path, focus = cast(:focus as jsonb),
        notes = cast(:notes as jsonb), background_removed = :background_removed, recipe = :recipe
    where id = :id
""")


def manifest_of(connection: Connection, media_id: int) -> list[StoredVariant]:
    """The manifest of one image."""
    query = text(f"""
        select {COLUMNS} from media_variants v where media_id = :id order by size, format, background
    """)
    return [StoredVariant(*row) for row in connection.execute(query, {"id": media_id})]


def version_of(variants: Iterable[StoredVariant]) -> str:
    """The version of an image's variants for URLs: 12 hexadecimal digits that change with any byte."""
    return hashlib.sha256("".join(sorted(one.sha256 for one in variants)).encode()).hexdigest()[:12]


def save_manifest(
    connection: Connection, media_id: int, made: Sequence[tuple[Variant, str]], *, recipe: str, facts: dict[str, Any]
) -> list[str]:
    """Replace the manifest by (variant, object key) pairs; returns the keys that no row names any more.

    Args:
        facts: the columns `library_path`, `focus`, `notes` and `background_removed` of `media_files`.
    """
    old = {variant.object_key for variant in manifest_of(connection, media_id)}
    connection.execute(text("delete from media_variants where media_id = :id"), {"id": media_id})
    rows = [
        {
            "media_id": media_id,
            "size": variant.size,
            "format": variant.format,
            "background": variant.background,
            "width": variant.width,
            "height": variant.height,
            "bytes": len(variant.data),
            "sha256": variant.sha256,
            "object_key": key,
            "quality": variant.quality,
            "score": variant.score,
            "recipe": recipe,
        }
        for variant, key in made
    ]
    names = ", ".join(rows[0])
    slots = ", ".join(f":{name}" for name in rows[0])
    connection.execute(text(f"insert into media_variants ({names}) values ({slots})"), rows)
    in_json = {name: json.dumps(facts[name]) for name in ("focus", "notes")}
    connection.execute(_FACTS, {**facts, **in_json, "recipe": recipe, "id": media_id})
    return sorted(old - {key for _, key in made})
