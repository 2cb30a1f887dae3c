"""A person's picture in the bucket: the original and its thumbnails, and how the manifest describes them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from imgpipe_orchestration.avatars.model import persona_prefix
from imgpipe_orchestration.avatars.results import Persona
from imgpipe_orchestration.services import Services

if TYPE_CHECKING:
    from PIL import Image

CACHE_CONTROL = "public, max-age=31536000"
"""A year: a key's picture changes only when somebody has a failed persona made again."""

File = tuple[str, bytes, str]
"""Key, bytes, media type."""


def files_of(services: Services, persona: Persona, name: str, png: bytes, image: Image.Image) -> list[File]:
    """The original and its thumbnails; the original first."""
    from imgpipe_orchestration.imaging.portrait_files import statement, thumbnails

    prefix = persona_prefix(persona.task_id, persona.id)
    xmp = statement(persona.model or "", standin=persona.standin)
    small = thumbnails(image, services.settings.avatar_thumbnail_side, xmp)
    return [
        (f"{prefix}{name}.png", png, "image/png"),
        *((f"{prefix}{name}_thumb.{kind}", data, f"image/{kind}") for kind, data in small.items()),
    ]


def put(services: Services, files: list[File]) -> dict[str, Any]:
    """Upload, and describe for the manifest."""
    for key, data, media_type in files:
        services.avatars_bucket.put(key, data, content_type=media_type, cache_control=CACHE_CONTROL)
    key, data, _ = files[0]
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    return {
        "key": key,
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "width": width,
        "height": height,
        "thumbnails": {key.rpartition(".")[2]: key for key, _, _ in files[1:]},
    }
