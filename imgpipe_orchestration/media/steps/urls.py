"""replace_urls: replace temp URLs in the profiles by smart URLs, complete the upload and delete its temp file."""

from __future__ import annotations

from sqlalchemy import Connection, text

from imgpipe_orchestration.errors import Conflict, PartnerRefused, PartnerUnavailable
from imgpipe_orchestration.media import model, pending, store, uploads
from imgpipe_orchestration.media.model import PendingStatus
from imgpipe_orchestration.media.steps.callback import report
from imgpipe_orchestration.media.steps.retrieve import mendable
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.claims import Claim
from imgpipe_orchestration.storage.rows import transaction

COLUMNS = (
    ("user_profiles", "profile_image_path"),
    ("user_profiles", "header_image_path"),
    ("artist_profiles", "logo_path"),
    ("promoter_profiles", "logo_path"),
    ("site_media", "media_path"),
    ("product_media", "media_path"),
    ("event_media", "media_path"),
)
"""Columns that contain temp URLs, from the specification's replacement script."""


def replace_urls(services: Services, claim: Claim) -> int:
    """Finish one processed upload; returns how many URLs were replaced. May be repeated.

    Raises:
        BackendUnavailable: a database or the object store is away.
        PartnerUnavailable: the main API has not stored our report yet. From the second time on it is sent again.
        NotFound: it no longer knows the image.
        Conflict: the upload is marked as processed but has no media id; it stays as it is.
    """
    with transaction(services.pending_engine) as connection:
        image = pending.get(connection, claim.item_id)
    if image.status is PendingStatus.PENDING:
        if claim.failures:
            _report_again(services, image.id)
        raise PartnerUnavailable(f"The main API acknowledged image {image.id} and has not stored it yet")
    if image.status is PendingStatus.FAILED:  # cleaned up in the meantime
        with services.claims.fenced(claim) as connection:
            services.claims.finish(connection, store.URLS, claim)
        return 0
    if image.media_id is None:
        raise Conflict(f"Image {image.id} is {image.status} and its permanent_url names no media id.")
    url = model.smart_url(services.settings.smart_media_base_url, image.media_id)
    with services.claims.fenced(claim) as connection:
        changed = replace(connection, image.image_path, url)
    # Mark the row before the file is deleted: a crash in between leaves an unneeded file, and never a URL without one.
    with transaction(services.pending_engine) as connection:
        pending.mark(connection, [image.id], PendingStatus.COMPLETE, unless=[PendingStatus.FAILED])
    uploads.remove_temp(services, image.image_path)
    with services.claims.fenced(claim) as connection:
        services.claims.finish(connection, store.URLS, claim)
    return changed


def _report_again(services: Services, pending_id: int) -> None:
    """Send the report of an image of ours once more, as a main API may lose what it acknowledged."""
    with transaction(services.engine) as connection:
        media = store.media_of_pending(connection, pending_id)
    if media is not None:
        report(services, media.id)


def replace(connection: Connection, old: str, new: str) -> int:
    """Replace a URL in every column that may hold it."""
    changed = 0
    for table, column in COLUMNS:
        query = text(f"update {table} set {column} = :new, updated_at = now() where {column} = :old")
        changed += connection.execute(query, {"old": old, "new": new}).rowcount
    return changed


def tell_of_failure(services: Services, claim: Claim) -> None:
    """Report a failed upload to a foreign main API, as the specification asks, unless it was requeued meanwhile.

    Raises:
        PartnerUnavailable, RateLimited: worth another try.
    """
    with transaction(services.pending_engine) as connection:
        failed = pending.get(connection, claim.item_id).status is PendingStatus.FAILED
    try:
        if failed:
            services.main_api.cleanup(claim.item_id)
    except PartnerRefused as refused:
        # It does not know the image, or has already settled it, so there is nothing to report.
        if refused.partner_status not in {404, 409, 410}:
            raise mendable(refused) from refused
    with services.claims.fenced(claim) as connection:
        services.claims.finish(connection, store.CLEANUPS, claim)
