"""resize_optimize: six sizes in every format, stored under `library/`, with a manifest row for each."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from imgpipe_orchestration.errors import Retryable
from imgpipe_orchestration.imaging.formats import extension
from imgpipe_orchestration.imaging.recipe import MEDIA
from imgpipe_orchestration.lifecycle import cdn
from imgpipe_orchestration.lifecycle.trash import dropping
from imgpipe_orchestration.media import model, store
from imgpipe_orchestration.media.model import DataType, Step
from imgpipe_orchestration.media.steps.retrieve import needed
from imgpipe_orchestration.media.store import MediaFile
from imgpipe_orchestration.media.variants import save_manifest
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.claims import Claim
from imgpipe_orchestration.storage.rows import transaction

if TYPE_CHECKING:
    from imgpipe_orchestration.imaging.encoding.encode_all import Variant
    from imgpipe_orchestration.imaging.render import Rendition
    from imgpipe_orchestration.imaging.subject.focus import FocusHints

_SURE = 0.5
"""Score from which an object that a provider names is believed."""
IMMUTABLE = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Resized:
    """The figures of one image for the run's totals, and a thumbnail for the contact sheet."""

    media_id: int
    source_bytes: int
    bytes_by_format: dict[str, int]
    variants: int
    thumbnail: bytes


class FocusMoved(Retryable):
    """Somebody set the focus by hand while the image was being rendered with another one."""

    spends_attempt = False


def resize(services: Services, claim: Claim) -> Resized:
    """Render an image, store its variants, then switch the manifest in one transaction.

    Raises:
        BadImage, TooLarge: the original cannot be decoded within the limits.
        BackendUnavailable: the object store or database is away; else as `needed`.
    """

    def ticked(connection: Connection) -> None:
        store.step_done(connection, claim, Step.RESIZE_OPTIMIZE)
        services.claims.progress(connection, claim)

    return _make(services, claim, ticked)


def remake(services: Services, claim: Claim) -> Resized:
    """Render a finished image again; the old variants are served until all new ones are stored.

    Raises:
        FocusMoved: the focus was changed meanwhile; also as `resize`.
    """
    return _make(services, claim, lambda connection: services.claims.finish(connection, store.REMAKE_VARIANTS, claim))


def _make(services: Services, claim: Claim, also: Callable[[Connection], None]) -> Resized:
    with transaction(services.engine) as connection:
        media = store.media_file(connection, claim.item_id)
        analysis = store.analysis(connection, claim.item_id)
    data = needed(services, media)
    rendition = render_in(services, data, media, hints(media, analysis))
    made = put_variants(services, media, rendition)
    keys = [key for _, key in made]
    with (
        dropping(services, f"media/{media.id}", services.media_bucket, keys),
        services.claims.fenced(claim) as connection,
    ):
        if store.focus(connection, media.id) != media.focus:
            raise FocusMoved(f"The focus of media {media.id} was set meanwhile; it is made once more.", retry_after=1)
        orphans = switch_manifest(connection, media, made, rendition)
        if orphans:
            cdn.order(services, connection, [f"media-{media.id}"])
        also(connection)
    services.media_bucket.discard(orphans)
    by_format: dict[str, int] = {}
    for variant, _ in made:
        by_format[variant.format] = by_format.get(variant.format, 0) + len(variant.data)
    thumbnail = next(v.data for v, _ in made if v.size == "thumbnail" and v.format in {"webp", "jpeg", "png"})
    return Resized(media.id, len(data), by_format, len(made), thumbnail)


def hints(media: MediaFile, analysis: dict[str, Any] | None) -> FocusHints:
    """What is known about the subject: a box set by hand, and the analysis."""
    from imgpipe_orchestration.imaging.geometry import Box
    from imgpipe_orchestration.imaging.subject.focus import FocusHints

    manual = media.focus if media.focus and media.focus.get("reason") == "manual" else None
    seen = (analysis or {}).get("boxes") or {}
    boxes = {name: tuple(Box(*box) for box in seen.get(name, ())) for name in ("faces", "crop_hints", "text", "logos")}
    objects = (one["box"] for one in (analysis or {}).get("detected_objects") or () if one["score"] >= _SURE)
    things = tuple(Box(*box) for box in objects if box)
    return FocusHints(manual=Box(*manual["box"]) if manual else None, objects=things, **boxes)


def render_in(services: Services, data: bytes, media: MediaFile, focus: FocusHints) -> Rendition:
    """Render all variants of one image in a worker process; logos whole and also with the background removed."""
    from imgpipe_orchestration.imaging.render import render

    with services.rendering.place(str(media.user_id)):
        return services.workshop.call(render, data, MEDIA, focus, media.data_type is DataType.LOGO)


def put_variants(services: Services, media: MediaFile, rendition: Rendition) -> list[tuple[Variant, str]]:
    """Store the variants; returns each with its object key."""
    prefix = model.library_prefix(media.user_id, media.data_type)
    made = [
        (v, model.variant_key(prefix, media.id, v.size, v.background, v.sha256, extension(v.format)))
        for v in rendition.variants
    ]

    def put(pair: tuple[Variant, str]) -> None:
        variant, key = pair
        services.media_bucket.put(key, variant.data, content_type=variant.mime, cache_control=IMMUTABLE)

    with ThreadPoolExecutor(4, thread_name_prefix="put") as pool:
        list(pool.map(put, made))
    return made


def switch_manifest(
    connection: Connection, media: MediaFile, made: list[tuple[Variant, str]], rendition: Rendition
) -> list[str]:
    """Serve the new variants from now on; returns the object keys that are no longer used."""
    facts = {
        "library_path": model.library_prefix(media.user_id, media.data_type),
        "focus": {"box": list(asdict(rendition.focus.box).values()), "reason": rendition.focus.reason},
        "notes": list(rendition.notes),
        "background_removed": any(v.background == "removed" for v, _ in made),
    }
    return save_manifest(connection, media.id, made, recipe=rendition.recipe, facts=facts)
