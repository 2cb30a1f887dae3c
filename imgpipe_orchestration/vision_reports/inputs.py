"""Fetches the documents of an analysis: its images and the descriptions of them.

Each image is handed to the backend before the next is fetched, so an analysis of two hundred images needs the memory
of one. Nothing is written to files, so a run that is killed leaves none behind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from imgpipe_orchestration.errors import BadImage, BadInput, ImgpipeError, Permanent, Retryable, TooLarge
from imgpipe_orchestration.partners.analysis_backend import ImageFile, ImageOrder, Missing
from imgpipe_orchestration.partners.json_text import decoded
from imgpipe_orchestration.vision_reports.model import Document, description_for
from imgpipe_orchestration.web.names import plain_text

if TYPE_CHECKING:
    from imgpipe_orchestration.partners.fetch import Fetcher, FetchLimits

_DESCRIPTIONS_LIMIT = 2 * 1024 * 1024
_DESCRIPTION_LENGTH = 2000

_Errors = tuple[type[ImgpipeError], ...]


@dataclass
class Gathered:
    """The images that the backend has, and what could not be used, with reasons."""

    images: list[ImageOrder] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def gather(
    documents: Sequence[Document],
    *,
    fetcher: Fetcher,
    limits: FetchLimits,
    max_images: int,
    patient: bool,
    hand_over: Callable[[ImageFile], str],
) -> Gathered:
    """Fetch everything and hand each image over.

    Args:
        patient: raise when a document cannot be fetched at this moment, because there will be another try; if False, it
            is left out.
        hand_over: gives an image to the backend and returns its id there.

    Raises:
        Retryable: see `patient`.
        ImgpipeError: that of `limits.stopped`; or from `hand_over`: the backend is away, or refuses all images.
    """
    gathered = Gathered()
    given_up = (Permanent,) if patient else (Permanent, Retryable)
    descriptions: dict[str, str] = {}
    for document in documents:
        if document.holds_descriptions:
            descriptions |= _descriptions(document, fetcher, limits, gathered.notes, given_up)
            _go_on(limits)
    images = [document for document in documents if not document.holds_descriptions]
    for extra in images[max_images:]:
        gathered.missing.append(Missing(extra.name, f"more than the {max_images} images that one analysis may have"))
    for document in images[:max_images]:
        picture = _picture(document, fetcher, limits, gathered.missing, given_up)
        _go_on(limits)
        if picture is None:
            continue
        try:
            image_id = hand_over(picture)
        except (BadImage, TooLarge) as error:
            gathered.missing.append(Missing(document.name, error.public))
            continue
        description = description_for(document.listed_as or document.name, descriptions)
        gathered.images.append(ImageOrder(image_id, plain_text(description, _DESCRIPTION_LENGTH)))
    return gathered


def _go_on(limits: FetchLimits) -> None:
    """Raises why the download was stopped, if it was: then the document is not to blame."""
    if (why := limits.stopped()) is not None:
        raise why


def _picture(
    document: Document, fetcher: Fetcher, limits: FetchLimits, missing: list[Missing], given_up: _Errors
) -> ImageFile | None:
    """The image, or None when fetching it raised one of `given_up`; the reason is added to `missing`."""
    from imgpipe_orchestration.imaging.limits import Limits
    from imgpipe_orchestration.imaging.reading.sniff import sniff

    if not document.url:
        missing.append(Missing(document.name, "the list gives no usable address for it"))
        return None
    try:
        data = fetcher.fetch_bytes(document.url, limits)
        found = sniff(data, Limits(max_bytes=limits.max_bytes))
    except given_up as error:
        missing.append(Missing(document.name, error.public))
        return None
    return ImageFile(document.name, data, found.mime)


def _descriptions(
    document: Document, fetcher: Fetcher, limits: FetchLimits, notes: list[str], given_up: _Errors
) -> dict[str, str]:
    """The texts of a descriptions file by image name; none when the file cannot be used, which is added to `notes`."""
    try:
        return _parse(fetcher.fetch_bytes(document.url, replace(limits, max_bytes=_DESCRIPTIONS_LIMIT)))
    except given_up as error:
        notes.append(f"The descriptions in {document.name} could not be used: {error.public}")
        return {}


def _parse(data: bytes) -> dict[str, str]:
    try:
        parsed = decoded(data)
    except ValueError as error:
        raise BadInput("it is not JSON") from error
    if not isinstance(parsed, dict):
        raise BadInput("it is not a JSON object of image name to description")
    texts = {str(name): str(text) for name, text in parsed.items() if isinstance(text, str | int | float)}
    if not texts and any(parsed.values()):  # e.g. the texts are one level deeper
        raise BadInput("no image has a text in it")
    return texts
