"""What is judged of the media pipeline: uploaded images."""

from sqlalchemy import Connection, text

from imgpipe_orchestration.media import model, store
from imgpipe_orchestration.media.lifecycle import MEDIA
from imgpipe_orchestration.media.steps.retrieve import original
from imgpipe_orchestration.media.uploads import point_to
from imgpipe_orchestration.moderation.model import Subject
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.rows import transaction


def _picture(services: Services, media_id: int) -> bytes:
    with transaction(services.engine) as connection:
        media = store.media_file(connection, media_id)
    return original(services, media)


def _facts(connection: Connection, media_id: int) -> tuple[int | None, str]:
    media = store.media_file(connection, media_id)
    return media.user_id, media.sha256 or ""


def _rejected(services: Services, connection: Connection, media_id: int) -> None:
    """Show the image before a rejected profile image (header, logo) again, if the user has one."""
    media = store.media_file(connection, media_id)
    before = store.last_completed(connection, media.user_id, media.kind, but=media_id)
    if media.kind not in store.ALONE or before is None:
        return
    field = next(field for field in model.FIELDS.values() if field.kind == media.kind)
    base = services.settings.smart_media_base_url
    ours = [model.smart_url(base, media_id), media.image_path]
    if connection.scalar(_SHOWS_ONE, {"user": media.user_id, "urls": ours}):
        point_to(connection, media.user_id, field, model.smart_url(base, before))
        connection.execute(text("update media_files set replaced_at = null where id = :id"), {"id": before})


_SHOWS_ONE = text("""
    select exists (select from user_profiles where user_id = :user
            and (profile_image_path = any(:urls) or header_image_path = any(:urls)))
        or exists (select from artist_profiles where user_id = :user and logo_path = any(:urls))
        or exists (select from promoter_profiles where user_id = :user and logo_path = any(:urls))
""")

UPLOADED = Subject("media", MEDIA, "media_files", _picture, _facts, rejected=_rejected)
