"""retrieve_file: the upload's bytes are stored unchanged under `bulk/`, and checked to be an image."""

import hashlib
from pathlib import PurePosixPath

from imgpipe_orchestration.errors import ImgpipeError, NotFound, PartnerRefused, PartnerUnavailable, Retryable
from imgpipe_orchestration.lifecycle.trash import dropping
from imgpipe_orchestration.media import model, store
from imgpipe_orchestration.media.model import Step, StepState
from imgpipe_orchestration.media.store import MediaFile
from imgpipe_orchestration.media.uploads import SVG_TYPE, drawn
from imgpipe_orchestration.storage.claims import Claim
from imgpipe_orchestration.storage.objects import fits_header
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.telemetry.logs import logger
from imgpipe_orchestration.wiring.services import Services

log = logger(__name__)


def retrieve(services: Services, claim: Claim) -> dict[str, float]:
    """Fetch the original, store it, check it and record its properties. Returns figures for the run's totals.

    It is stored before it is checked: a broken file is evidence, and may be tried again with a better decoder.

    Raises:
        BadImage, TooLarge: not an image we can use.
        Retryable: worth another try; also for a missing file, which a store that has just failed over may not know yet.
    """
    from imgpipe_orchestration.imaging.reading.sniff import sniff

    with transaction(services.engine) as connection:
        media = store.media_file(connection, claim.item_id)
    data = needed(services, media)
    extension = PurePosixPath(media.image_path).suffix[1:].lower() or "bin"
    drawn_as = {"svg": "png"}.get(extension, extension)
    key = media.bulk_path or f"bulk/{media.upload_day.isoformat()}/{media.id}.{drawn_as}"
    if media.bulk_path is None:
        _keep(services, media, key, data)
        with (
            dropping(services, f"media/{media.id}", services.media_bucket, [key]),
            services.claims.fenced(claim) as connection,
        ):
            store.retrieved(connection, media.id, {"bulk_path": key, "file_size": len(data)})
    found = sniff(data)
    width, height = found.upright_size
    with services.claims.fenced(claim) as connection:
        facts = {
            "sha256": hashlib.sha256(data).hexdigest(),
            "mime_type": found.mime,
            "width": width,
            "height": height,
            "animated": found.animated,
            "file_size": len(data),
        }
        store.retrieved(connection, media.id, facts)
        store.step_ended(connection, claim, Step.RETRIEVE_FILE, StepState.COMPLETED)
        services.claims.progress(connection, claim)
    return {"megabytes": len(data) / 1e6, f"from_{found.format}": 1}


def needed(services: Services, media: MediaFile) -> bytes:
    """As `original`, for a step that cannot do without it.

    Raises:
        Retryable: nobody has it, as after a failover of the object store; else as `original`.
    """
    try:
        return original(services, media)
    except NotFound as gone:
        raise Retryable(gone.public, detail=gone.detail) from gone


def original(services: Services, media: MediaFile, *, ask: bool = True) -> bytes:
    """The bytes of the upload: the stored original, else the temp file from our object store or the main API. An
    original that is missing is put back from the temp file.

    Args:
        ask: whether to ask the main API too, where it is another system's.

    Raises:
        NotFound: none of them has it.
        Retryable: the object has another size than was stored.
        PartnerUnavailable, RateLimited: the main API is away, or refuses our key.
        BackendUnavailable: the object store is away.
    """
    if media.bulk_path is None:
        return _upload(services, media, ask=ask)
    try:
        return services.media_bucket.get(media.bulk_path, size=media.file_size)
    except NotFound as lost:
        try:
            data = _upload(services, media, ask=ask)
        except NotFound as gone:  # usual for a finished image; the missing original is what matters
            raise NotFound(f"The stored original is gone. {gone.public}", detail=lost.detail) from gone
    _keep(services, media, media.bulk_path, data)
    log.warning("original put back", extra={"media_id": media.id, "key": media.bulk_path})
    return data


def _keep(services: Services, media: MediaFile, key: str, data: bytes) -> None:
    # The type that the main API declared; the bytes have not been checked yet.
    mime = media.mime_type if media.mime_type and fits_header(media.mime_type) else "application/octet-stream"
    if mime.startswith(SVG_TYPE):
        mime = "image/png"  # SVG logos are stored as PNG
    services.media_bucket.put(key, data, content_type=mime, cache_control="private")


def _upload(services: Services, media: MediaFile, *, ask: bool) -> bytes:
    try:
        data = services.media_bucket.get(model.temp_key(media.image_path), size=media.file_size)
    except NotFound:
        if not (ask and services.foreign_main_api):
            told = "The temp file of this upload is gone; ask for the upload again."
            raise NotFound(told, detail=media.image_path) from None
        try:
            data = services.main_api.fetch_temp(media.image_path, limit=services.settings.upload_max_bytes)
        except PartnerRefused as refused:
            if refused.partner_status in {404, 410}:
                told = "The main API does not have the temp file any more; ask for the upload again."
                raise NotFound(told, detail=media.image_path) from refused
            raise mendable(refused) from refused
    return drawn(services, data, media.data_type)


def mendable(error: ImgpipeError) -> ImgpipeError:
    """A refused credential, or a redirect (to a login or a maintenance page), as an error that is retried, so that no
    image fails or stays without analysis because of it. Any other error as it is.
    """
    if isinstance(error, PartnerRefused) and error.partner_status in _MENDED_BY_PEOPLE:
        return PartnerUnavailable(error.public, detail=error.detail)
    return error


_MENDED_BY_PEOPLE = {401, 403, *range(300, 400)}
