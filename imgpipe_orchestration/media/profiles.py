"""A user's profile for the front end: with temp URLs at first, and smart URLs as soon as they exist."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import Connection, text

from imgpipe_orchestration.media import model, pending, store
from imgpipe_orchestration.media.model import PendingStatus
from imgpipe_orchestration.media.pending import PendingImage
from imgpipe_orchestration.media.serving import signing
from imgpipe_orchestration.media.uploads import PROFILE_TEXTS
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.rows import transaction

_ALONE = {"profile_image_path": "profile", "header_image_path": "header", "logo_path": "logo"}
"""Places for one image each, and what is shown there (`Field.kind`)."""
_LISTS = ("site_media", "product_media", "event_media")
RECENT = 100
"""Most images in each list of a profile."""


def profile(services: Services, user_id: int) -> dict[str, Any]:
    """Texts, profile and header image, logo, and the user's site, product and event images, newest first.

    Those that are temp URLs still are listed again under `images`, with their upload's id, status and what was wrong.
    In place of one that failed, the user's last image of its kind is shown, if there is one.
    """
    columns = ", ".join((*PROFILE_TEXTS, *list(_ALONE)[:2]))
    found: dict[str, Any] = {"id": user_id}
    with transaction(services.engine) as connection:
        row = connection.execute(text(f"select {columns} from user_profiles where user_id = :id"), {"id": user_id})
        found |= dict(row.mappings().one_or_none() or dict.fromkeys(columns.split(", ")))
        logo = text("""
            select logo_path from artist_profiles where user_id = :id and logo_path is not null
            union all select logo_path from promoter_profiles where user_id = :id and logo_path is not null limit 1
        """)
        found["logo_path"] = connection.scalar(logo, {"id": user_id})
        for name in _LISTS:
            query = text(f"select id, media_path from {name} where user_id = :id order by id desc limit {RECENT}")
            found[name] = [dict(row) for row in connection.execute(query, {"id": user_id}).mappings()]
    return _signed(services, _enhanced(services, found))


def _enhanced(services: Services, found: dict[str, Any]) -> dict[str, Any]:
    """The profile with smart URLs for temp paths whose media id is known but not yet replaced in the tables."""
    temp = [url for url in _urls(found) if url.startswith("/temp_images/")]
    if not temp:
        return {**found, "images": []}
    with transaction(services.pending_engine) as connection:
        known = pending.by_paths(connection, temp)
    base = services.settings.smart_media_base_url
    smart = {path: model.smart_url(base, image.media_id) for path, image in known.items() if image.media_id}
    images = [image for path, image in known.items() if path not in smart]
    failed = {image.image_path for image in images if image.status is PendingStatus.FAILED}
    with transaction(services.engine) as connection:
        deleted = store.deleted_uploads(connection, [image.id for image in known.values()])
        found = _without(found, {path for path, image in known.items() if image.id in deleted})
        images = [image for image in images if image.id not in deleted]
        states = [_state(connection, image) for image in images]
        for name, kind in _ALONE.items():
            if found[name] in failed and (before := store.last_completed(connection, found["id"], kind)):
                smart[found[name]] = model.smart_url(base, before)
    return {**_replaced(found, smart), "images": states}


def _state(connection: Connection, image: PendingImage) -> dict[str, Any]:
    """What became of an upload that has no media id."""
    media = store.media_of_pending(connection, image.id) if image.status is PendingStatus.FAILED else None
    error = media.error if media else None
    return {"id": image.id, "image_path": image.image_path, "status": image.status.value, "error": error}


def _signed(services: Services, found: dict[str, Any]) -> dict[str, Any]:
    """The profile without images that were deleted, and with signed URLs for the user's private ones, as it is their
    own profile."""
    smart = re.compile(re.escape(services.settings.smart_media_base_url) + rf"/({model.OUR_MEDIA_ID})\?size=\w+")
    ids = {url: int(match[1]) for url in _urls(found) if (match := smart.fullmatch(url))}
    if not ids:
        return found
    with transaction(services.engine) as connection:
        private = store.private_ones(connection, list(ids.values()), owner=found["id"])
        deleted = store.deleted_ones(connection, list(ids.values()))
    settings = services.settings
    found = _without(found, {url for url, id_ in ids.items() if id_ in deleted})
    return _replaced(found, {url: signing.signed_url(settings, id_)[0] for url, id_ in ids.items() if id_ in private})


def _without(found: dict[str, Any], gone: set[str]) -> dict[str, Any]:
    """The profile without some URLs."""
    alone = {name: None for name in _ALONE if found[name] in gone}
    lists = {name: [entry for entry in found[name] if entry["media_path"] not in gone] for name in _LISTS}
    return {**found, **alone, **lists}


def _urls(found: dict[str, Any]) -> list[str]:
    """All image URLs in a profile."""
    alone = [value for name, value in found.items() if name in _ALONE and value]
    return [*alone, *(entry["media_path"] for name in _LISTS for entry in found[name])]


def _replaced(found: dict[str, Any], urls: dict[str, str]) -> dict[str, Any]:
    alone = {name: urls.get(found[name], found[name]) for name in _ALONE}
    lists = {
        name: [{**e, "media_path": urls.get(e["media_path"], e["media_path"])} for e in found[name]] for name in _LISTS
    }
    return {**found, **alone, **lists}
