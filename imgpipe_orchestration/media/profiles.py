"""A user's profile as the front end wants it: temp URLs at first, smart URLs as soon as there are some."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text

from imgpipe_orchestration.media import model, pending
from imgpipe_orchestration.media.uploads import PROFILE_TEXTS
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.rows import transaction

_LISTS = {"site_media": "site_media", "product_media": "product_media", "event_media": "event_media"}
RECENT = 100
"""Most images of one list in a profile."""


def profile(backends: Services, user_id: int) -> dict[str, Any]:
    """Texts, profile and header image, logo, and the user's site, product and event images, newest first."""
    columns = ", ".join((*PROFILE_TEXTS, "profile_image_path", "header_image_path"))
    found: dict[str, Any] = {"id": user_id}
    with transaction(backends.engine) as connection:
        row = connection.execute(text(f"select {columns} from user_profiles where user_id = :id"), {"id": user_id})
        found |= dict(row.mappings().one_or_none() or dict.fromkeys(columns.split(", ")))
        logo = text("""
            select logo_path from artist_profiles where user_id = :id and logo_path is not null
            union all select logo_path from promoter_profiles where user_id = :id and logo_path is not null limit 1
        """)
        found["logo_path"] = connection.scalar(logo, {"id": user_id})
        for name, table in _LISTS.items():
            query = text(f"select id, media_path from {table} where user_id = :id order by id desc limit {RECENT}")
            found[name] = [dict(row) for row in connection.execute(query, {"id": user_id}).mappings()]
    return _enhanced(backends, found)


def _enhanced(backends: Services, found: dict[str, Any]) -> dict[str, Any]:
    """Temp paths whose media id is known already become smart URLs, before the replacement has reached the tables."""
    temp = [v for v in found.values() if isinstance(v, str) and v.startswith("/temp_images/")]
    temp += [e["media_path"] for name in _LISTS for e in found[name] if e["media_path"].startswith("/temp_images/")]
    if not temp:
        return found
    with transaction(backends.pending_engine) as connection:
        known = pending.by_paths(connection, temp)
    base = backends.settings.smart_media_base_url
    smart = {path: model.smart_url(base, i.permanent_url) for path, i in known.items() if i.permanent_url}
    enhanced = {k: smart.get(v, v) if isinstance(v, str) else v for k, v in found.items()}
    for name in _LISTS:
        enhanced[name] = [{**e, "media_path": smart.get(e["media_path"], e["media_path"])} for e in found[name]]
    return enhanced
