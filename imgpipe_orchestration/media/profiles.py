"""A user's profile for the front end: with temp URLs at first, and smart URLs as soon as they exist."""

import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import text

from imgpipe_orchestration.media import model, pending, store
from imgpipe_orchestration.media.model import PendingStatus
from imgpipe_orchestration.media.serving import signing
from imgpipe_orchestration.media.uploads import PROFILE_TEXTS
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.wiring.services import Services

_ALONE = {"profile_image_path": "profile", "header_image_path": "header", "logo_path": "logo"}
"""Places for one image each, and what is shown there (`Field.kind`)."""
_LISTS = ("site_media", "product_media", "event_media")
RECENT = 100
"""Most images in each list of a profile."""


def profile(services: Services, user_id: int) -> dict[str, Any]:
    """Texts, profile and header image, logo, and the user's site, product and event images, newest first.

    Those that are temp URLs still are listed again under `images`, with their upload's id, status and what was wrong.
    In place of one that failed, the user's last image of its kind is shown, if there is one. Deleted ones are left out.
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
    smart, images = _smart(services, found)
    found = _with(found, smart | _reported(services, user_id))
    return {**_with(found, _signed(services, found)), "images": images}


def _smart(services: Services, found: dict[str, Any]) -> tuple[dict[str, str | None], list[dict[str, Any]]]:
    """What is shown in place of temp URLs whose media id is known but not yet replaced in the tables, and the uploads
    that have none."""
    temp = [url for url in _urls(found) if url.startswith("/temp_images/")]
    if not temp:
        return {}, []
    with transaction(services.pending_engine) as connection:
        known = {image.image_path: image for image in pending.find(connection, pending.t.c.image_path.in_(temp))}
    base = services.settings.smart_media_base_url
    with transaction(services.engine) as connection:
        deleted = store.deleted_uploads(connection, [image.id for image in known.values()])
        shown: dict[str, str | None] = {path: None for path, image in known.items() if image.id in deleted}
        left = {path: image for path, image in known.items() if path not in shown}
        shown |= {path: model.smart_url(base, image.media_id) for path, image in left.items() if image.media_id}
        images = [image for path, image in left.items() if path not in shown]
        states = []
        for image in images:
            media = store.media_of_pending(connection, image.id) if image.status is PendingStatus.FAILED else None
            state = {"id": image.id, "image_path": image.image_path, "status": image.status.value}
            states.append({**state, "error": media.error if media else None})
        failed = {image.image_path for image in images if image.status is PendingStatus.FAILED}
        for name, kind in _ALONE.items():
            if found[name] in failed and (before := store.last_completed(connection, found["id"], kind)):
                shown[found[name]] = model.smart_url(base, before)
    return shown, states


def _reported(services: Services, user_id: int) -> dict[str, str | None]:
    """None in place of deleted images for which another worker reported a media id of its own."""
    with transaction(services.engine) as connection:
        deleted = store.deleted_uploads(connection, user_id=user_id)
    if not deleted:
        return {}
    with transaction(services.pending_engine) as connection:
        ids = pending.reported_ids(connection, deleted)
    return {model.smart_url(services.settings.smart_media_base_url, id_): None for id_ in ids}


def _signed(services: Services, found: dict[str, Any]) -> dict[str, str | None]:
    """Signed URLs in place of the user's private ones, as it is their own profile, and None in place of deleted
    ones."""
    settings = services.settings
    smart = re.compile(re.escape(settings.smart_media_base_url) + rf"/({model.OUR_MEDIA_ID})\?size=\w+")
    ids = {url: int(match[1]) for url in _urls(found) if (match := smart.fullmatch(url))}
    if not ids:
        return {}
    with transaction(services.engine) as connection:
        values = {"ids": list(ids.values()), "user_id": found["id"]}
        private, deleted = (set(connection.scalars(query, values)) for query in (_PRIVATE, _DELETED))
    signed = {url: signing.signed_url(settings, id_)[0] for url, id_ in ids.items() if id_ in private}
    return signed | {url: None for url, id_ in ids.items() if id_ in deleted}


_PRIVATE = text("select id from media_files where id = any(:ids) and private and user_id = :user_id")
_DELETED = text("select item from deletions where kind = 'media' and item = any(:ids)")


def _urls(found: dict[str, Any]) -> list[str]:
    alone = [value for name, value in found.items() if name in _ALONE and value]
    return [*alone, *(entry["media_path"] for name in _LISTS for entry in found[name])]


def _with(found: dict[str, Any], urls: Mapping[str, str | None]) -> dict[str, Any]:
    """The profile with other URLs in place of some, and without those in whose place is None."""
    alone = {name: urls.get(found[name], found[name]) for name in _ALONE}
    lists = {
        name: [
            {**entry, "media_path": url}
            for entry in found[name]
            if (url := urls.get(entry["media_path"], entry["media_path"])) is not None
        ]
        for name in _LISTS
    }
    return {**found, **alone, **lists}
