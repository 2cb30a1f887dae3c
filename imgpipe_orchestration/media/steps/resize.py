"""resize_optimize: six sizes in every format, stored under `library/`, with a manifest row for each."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, column, insert, table, text

from imgpipe_orchestration.errors import Planned
from imgpipe_orchestration.imaging.formats import MIME_OF, extension
from imgpipe_orchestration.imaging.recipe import MEDIA
from imgpipe_orchestration.lifecycle import cdn
from imgpipe_orchestration.lifecycle.trash import dropping
from imgpipe_orchestration.media import model, store
from imgpipe_orchestration.media.model import DataType, Step, StepState
from imgpipe_orchestration.media.steps.retrieve import needed
from imgpipe_orchestration.media.store import MediaFile, manifest_of
from imgpipe_orchestration.storage.claims import Claim
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.wiring.services import Services

if TYPE_CHECKING:
    from imgpipe_orchestration.imaging.encoding.encode_all import Variant
    from imgpipe_orchestration.imaging.render import Rendition
    from imgpipe_orchestration.imaging.subject.focus import FocusHints

_SURE = 0.5
"""Score from which an object that a provider names is believed."""
IMMUTABLE = "public, max-age=31536000, immutable"


def resize(services: Services, claim: Claim, *, again: bool = False) -> dict[str, float]:
    """Render an image, store its variants, then switch the manifest in one transaction. Of a finished image, which is
    made `again`, the old variants are served until then. Returns figures for the run's totals.

    Raises:
        BadImage, TooLarge: the original cannot be decoded within the limits.
        BackendUnavailable: the object store or database is away; else as `needed`.
        Planned: the focus was set by hand meanwhile.
    """
    from imgpipe_orchestration.imaging.render import render

    with transaction(services.engine) as connection:
        media = store.media_file(connection, claim.item_id)
        analysis = store.analysis(connection, claim.item_id)
    data = needed(services, media)
    shop, known = services.workshop, hints(media, analysis)
    is_logo = media.data_type is DataType.LOGO  # also with the background removed
    with services.rendering.place(str(media.user_id)) as held:
        rendition = shop.call(render, data, MEDIA, known, is_logo, threads=max(1, shop.workers // held))
    made = _put(services, media, rendition)
    keys = [key for _, key in made]
    with (
        dropping(services, f"media/{media.id}", services.media_bucket, keys),
        services.claims.fenced(claim) as connection,
    ):
        if connection.scalar(_FOCUS, {"id": media.id}) != media.focus:
            raise Planned(f"The focus of media {media.id} was set meanwhile; it is made once more.", retry_after=1)
        orphans = _save_manifest(connection, media, made, rendition)
        if orphans:
            cdn.order(services, connection, [f"media-{media.id}"])
        if again:
            services.claims.finish(connection, store.REMAKE_VARIANTS, claim)
        else:
            store.step_ended(connection, claim, Step.RESIZE_OPTIMIZE, StepState.COMPLETED)
            services.claims.progress(connection, claim)
    services.media_bucket.discard(orphans)
    figures: dict[str, float] = {"variants": len(made), "megabytes_originals": len(data) / 1e6}
    for variant, _ in sorted(made, key=lambda pair: pair[0].format):
        name = f"megabytes_{variant.format}"
        figures[name] = figures.get(name, 0) + len(variant.data) / 1e6
    return figures


def hints(media: MediaFile, analysis: dict[str, Any] | None) -> FocusHints:
    """What is known about the subject: a box set by hand, and the analysis."""
    from imgpipe_orchestration.imaging.geometry import Box
    from imgpipe_orchestration.imaging.subject.focus import FocusHints

    manual = media.focus if media.focus and media.focus.get("reason") == "manual" else None
    seen = (analysis or {}).get("boxes") or {}
    boxes = {name: tuple(Box(*box) for box in seen.get(name, ())) for name in ("faces", "crop_hints", "text", "logos")}
    objects = (one["box"] for one in (analysis or {}).get("detected_objects") or () if one["score"] >= _SURE)
    # Corrections were once stored with their corners in any order.
    things = tuple(Box(*box) for box in objects if box and box[0] < box[2] and box[1] < box[3])
    return FocusHints(manual=Box(*manual["box"]) if manual else None, objects=things, **boxes)


def _put(services: Services, media: MediaFile, rendition: Rendition) -> list[tuple[Variant, str]]:
    prefix = model.library_prefix(media.user_id, media.data_type)

    def put(variant: Variant) -> tuple[Variant, str]:
        cut_out = "-removed" if variant.background == "removed" else ""
        # With the hash in it a key always means the same bytes, so a new manifest can be committed while the old one is
        # still being served.
        name = f"{media.id}-{variant.size}{cut_out}-{variant.sha256[:12]}.{extension(variant.format)}"
        key = f"{prefix}/{name}"
        services.media_bucket.put(key, variant.data, content_type=MIME_OF[variant.format], cache_control=IMMUTABLE)
        return variant, key

    with ThreadPoolExecutor(4, thread_name_prefix="put") as pool:
        return list(pool.map(put, rendition.variants))


def _save_manifest(
    connection: Connection, media: MediaFile, made: list[tuple[Variant, str]], rendition: Rendition
) -> list[str]:
    """Serve the new variants from now on; returns the object keys that no row names any more."""
    old = {variant.object_key for variant in manifest_of(connection, media.id)}
    connection.execute(text("delete from media_variants where media_id = :id"), {"id": media.id})
    rows = [
        {
            **{name: getattr(variant, name) for name in _OF_VARIANT},
            "media_id": media.id,
            "bytes": len(variant.data),
            "object_key": key,
            "recipe": MEDIA.version,
        }
        for variant, key in made
    ]
    connection.execute(insert(table("media_variants", *map(column, rows[0]))), rows)
    focus = {"box": list(asdict(rendition.focus.box).values()), "reason": rendition.focus.reason}
    facts = {
        "id": media.id,
        "library_path": model.library_prefix(media.user_id, media.data_type),
        "focus": json.dumps(focus),
        "notes": json.dumps(list(rendition.notes)),
        "background_removed": any(v.background == "removed" for v, _ in made),
        "recipe": MEDIA.version,
    }
    connection.execute(_FACTS, facts)
    return sorted(old - {key for _, key in made})


_OF_VARIANT = ("size", "format", "background", "width", "height", "sha256", "quality", "score")
_FOCUS = text("select focus from media_files where id = :id for update")
_FACTS = text("""
    update media_files set library_path = :library_path, focus = cast(:focus as jsonb),
        notes = cast(:notes as jsonb), background_removed = :background_removed, recipe = :recipe
    where id = :id
""")
