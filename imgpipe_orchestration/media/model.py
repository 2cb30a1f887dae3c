"""The types of the media pipeline (states, kinds of uploads), and its paths and URLs. Pure functions only."""

import re
import secrets
import time
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from imgpipe_orchestration.errors import BadInput


class PendingStatus(StrEnum):
    """States of `pending_images`, with the specification's names."""

    PENDING = "pending"  # uploaded, not processed
    PROCESSED = "processed"  # a media backend reported its media id
    COMPLETE = "complete"  # every temp URL in the profiles is replaced by a smart URL
    FAILED = "failed"  # could not be processed, or was cleaned up


class MediaStatus(StrEnum):
    """States of `media_files`."""

    DOWNLOADING = "downloading"  # the original has not been retrieved yet
    PROCESSING = "processing"  # the original is there, the callback not yet acknowledged
    COMPLETED = "completed"  # variants stored, callback acknowledged
    FAILED = "failed"  # given up; the reason is in `error`


class StepState(StrEnum):
    """States of one step in `processing_checklist`."""

    PENDING = "pending"
    COMPLETED = "completed"
    FAILED = "failed"


class Step(StrEnum):
    """The steps of `processing_checklist`, in order; each is a column."""

    RETRIEVE_FILE = "retrieve_file"
    AI_VISUAL_ANALYSIS = "ai_visual_analysis"
    RESIZE_OPTIMIZE = "resize_optimize"
    UPDATE_CALLBACK = "update_callback"


REPLACE_URLS = "replace_urls"
"""The last stage of a run. It is not a step of the checklist: it also does what other workers reported."""


class DataType(StrEnum):
    """What an image is for; determines its folder and how it is analysed."""

    PRODUCT = "product"
    PROFILE = "profile"
    EVENT = "event"
    LOGO = "logo"
    SITES = "sites"


@dataclass(frozen=True)
class Field:
    """A file field of the upload form: its kind in temp names, the temp folder, the data type."""

    name: str
    kind: str
    folder: str
    data_type: DataType


FIELDS = {
    field.name: field
    for field in (
        Field("profile_image", "profile", "profiles", DataType.PROFILE),
        Field("header_image", "header", "profiles", DataType.PROFILE),
        Field("logo_image", "logo", "profiles", DataType.LOGO),
        Field("site_image", "site", "sites", DataType.SITES),
        Field("product_image", "product", "products", DataType.PRODUCT),
        Field("event_image", "event", "events", DataType.EVENT),
    )
}
"""The upload form's file fields (MEDIA_TYPE_MAPPING of the specification)."""

BY_KIND = {field.kind: field for field in FIELDS.values()} | {"sites": FIELDS["site_image"]}
_BY_FOLDER = {field.folder: field for field in reversed(FIELDS.values())}

_TEMP_PATH = re.compile(r"/temp_images/(?P<folder>[a-z]+)/(?:\d+-(?P<kind>[a-z]+)-)?[\w.~-]+")


def temp_path(field: Field, user_id: int, extension: str) -> str:
    """A fresh `/temp_images/{folder}/{userId}-{type}-{unix seconds}-{random}.{ext}`."""
    name = f"{user_id}-{field.kind}-{int(time.time())}-{secrets.randbelow(10**9):09d}.{extension}"
    return f"/temp_images/{field.folder}/{name}"


def is_temp_path(path: str) -> bool:
    """Whether a path is that of a temp file, without `..` in it."""
    return _TEMP_PATH.fullmatch(path) is not None and ".." not in path


def temp_key(path: str) -> str:
    """The object key of a temp path.

    Raises:
        BadInput: the path is not one of ours.
    """
    if not is_temp_path(path):
        raise BadInput(f"{path!r} is not a temp image path", field="image_path")
    return path.lstrip("/")


def field_of(path: str) -> Field:
    """What the image at a temp path is for: by the type in its name, else by its folder.

    Raises:
        BadInput: neither is known.
    """
    match = _TEMP_PATH.fullmatch(path)
    field = (BY_KIND.get(match["kind"]) or _BY_FOLDER.get(match["folder"])) if match else None
    if field is None:
        raise BadInput(f"{path!r} does not say what kind of image it is", field="image_path")
    return field


def library_prefix(user_id: int, data_type: DataType) -> str:
    """Where a user's variants are kept: `library/user_N/{type}/img`."""
    return f"library/user_{user_id}/{data_type}/img"


OUR_MEDIA_ID = "[1-9][0-9]{0,17}"
"""Pattern of our own images' ids; another worker's may be any that `is_media_id` accepts."""
_MEDIA_ID = re.compile(r"(?=[A-Za-z_-]*[0-9])[0-9A-Za-z][0-9A-Za-z_-]{0,63}")


def is_media_id(text: str) -> bool:
    """Whether a text can be the id of an image, ours or another worker's. An id must have a digit, which excludes the
    `undefined` of a forgotten id."""
    return _MEDIA_ID.fullmatch(text) is not None


def media_id_in(url: str | None) -> str | None:
    """The media id in a `permanent_url`; None where there is none. In the specification's table it is only the id, in
    its callback a URL that ends with it."""
    try:
        named = urlsplit(url or "").path.rstrip("/").rpartition("/")[2]
    except ValueError:
        return None
    return named if is_media_id(named) else None


def smart_url(base: str, media_id: str | int) -> str:
    """The smart URL of a processed image."""
    return f"{base}/{media_id}?size=detail"
