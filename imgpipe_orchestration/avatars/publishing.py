"""Publishes a picture: uploads it with thumbnails, and describes it for the manifest."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from imgpipe_orchestration.avatars.model import persona_prefix
from imgpipe_orchestration.avatars.results import Persona
from imgpipe_orchestration.services import Services

if TYPE_CHECKING:
    from imgpipe_orchestration.imaging.portraits.finishing import Files

CACHE_CONTROL = "public, max-age=31536000"
"""A year. The picture of a key changes only when a failed persona is made again."""


def publish(services: Services, persona: Persona, name: str, files: Files) -> dict[str, Any]:
    """Upload the original and its thumbnails, and describe them."""
    prefix = persona_prefix(persona.task_id, persona.id)
    key = f"{prefix}{name}.png"
    png = files.png
    _put(services, key, png, "image/png")
    thumbnails = {kind: f"{prefix}{name}_thumb.{kind}" for kind in files.thumbnails}
    for kind, data in files.thumbnails.items():
        _put(services, thumbnails[kind], data, f"image/{kind}")
    width, height = int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")
    return {
        "key": key,
        "sha256": hashlib.sha256(png).hexdigest(),
        "bytes": len(png),
        "width": width,
        "height": height,
        "thumbnails": thumbnails,
    }


def _put(services: Services, key: str, data: bytes, media_type: str) -> None:
    services.avatars_bucket.put(key, data, content_type=media_type, cache_control=CACHE_CONTROL)
