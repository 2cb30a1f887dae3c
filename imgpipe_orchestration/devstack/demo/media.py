"""Two users upload photographs; each has arrived once its smart URL serves AVIF, WebP and JPEG."""

import io
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from PIL import ExifTags, Image

from imgpipe_orchestration.devstack import photos
from imgpipe_orchestration.devstack.demo.scenario import Exhibit, Result, Stack

_COLUMNS = {
    "profile_image": "profile_image_path",
    "header_image": "header_image_path",
    "logo_image": "logo_path",
    "site_image": "site_media",
    "product_image": "product_media",
    "event_image": "event_media",
}
"""Upload field: where the profile shows it, a path or a list of {media_path}."""

_SAID = {"Alternative text": "alt_text", "Subject": "subject", "Style": "style", "Medium": "medium"}
_FORMATS = ("image/avif", "image/webp", "image/jpeg")

Files = dict[str, tuple[str, bytes]]
"""Upload field: name and content."""


def media(stack: Stack, result: Result) -> Iterator[None]:
    """`PATCH /users/me` with several files at once, then `GET /users/me` until every temp URL is a smart one."""
    first, second, doubtful = _photographs()
    # Users of this moment: a second demo on the same data must not find the first one's images.
    user = int(time.time())
    doubtful_user = user + 2_000_000_000
    uploads = {user: first, user + 1_000_000_000: second}
    _upload(stack, doubtful_user, doubtful)  # first, so that they are ready when the others are
    for user_id, files in uploads.items():
        _upload(stack, user_id, files)
    originals = {(user_id, field): file for user_id, files in uploads.items() for field, file in files.items()}
    result.items = len(originals)
    arrived: dict[tuple[int, str], str] = {}
    while not result.settled:
        profiles = {user_id: _profile(stack, user_id) for user_id in uploads}
        for user_id, field in [key for key in originals if key not in arrived]:
            url = _shown(profiles[user_id], field)
            if "/temp_images/" not in url and _served(stack, url):
                arrived[user_id, field] = url
        result.arrived = len(arrived)
        result.waiting_for = f"{result.items - result.arrived} smart URLs"
        yield
    _report(stack, doubtful_user)
    result.exhibits = [_exhibit(stack, url, *originals[key]) for key, url in arrived.items()]


def _photographs() -> tuple[Files, Files, Files]:
    """What the first and the second user upload; and what is flagged, held and reported."""
    first = {
        "profile_image": ("astronaut.jpg", photos.jpeg("astronaut")),
        "header_image": ("stars.jpg", photos.jpeg("hubble", width=2400)),
        "logo_image": ("logo.png", photos.LOGO.read_bytes()),
        "product_image": ("coffee.jpg", photos.jpeg("coffee", width=2000)),
    }
    second = {
        "profile_image": ("cat.jpg", photos.jpeg("chelsea")),
        "site_image": ("wall.jpg", photos.jpeg("brick", width=2400)),
        "event_image": ("retina.jpg", photos.jpeg("retina")),
    }
    # The stand-in reads a verdict in a copyright.
    doubtful = {
        "product_image": ("flagged.jpg", _saying(photos.jpeg("coffee"), "moderation(sexual=0.7)")),
        "site_image": ("held.jpg", photos.jpeg("hubble")),
        "event_image": ("reported.jpg", photos.jpeg("chelsea")),
    }
    return first, second, doubtful


def _upload(stack: Stack, user_id: int, files: Files) -> None:
    headers = stack.user_headers(user_id)
    stack.accepted("PATCH", "/users/me", headers=headers, files=files, data={"first_name": "Demo"})


def _profile(stack: Stack, user_id: int) -> dict[str, Any]:
    return dict(stack.accepted("GET", "/users/me", headers=stack.user_headers(user_id)).json())


def _shown(profile: dict[str, Any], field: str) -> str:
    value = profile[_COLUMNS[field]]
    if isinstance(value, list):
        value = value[0]["media_path"] if value else ""
    return str(value or "/temp_images/")


def _served(stack: Stack, url: str) -> bool:
    """Whether the smart URL serves an image for each of the formats."""
    answers = [stack.request("GET", url, headers={"Accept": wanted}) for wanted in _FORMATS]
    return all(one.ok and one.headers["Content-Type"].startswith("image/") for one in answers)


def _report(stack: Stack, user_id: int) -> None:
    """Report two images of this user, one of them so often that it is held back."""
    profile = _profile(stack, user_id)
    for field, times in (("site_image", 3), ("event_image", 1)):
        url = _shown(profile, field)
        if "/temp_images/" in url:  # not ready yet
            continue
        media_id = urlsplit(url).path.rpartition("/")[2]
        for number in range(times):
            reporter, body = stack.user_headers(user_id + 1 + number), {"reason": "It is mine."}
            stack.accepted("POST", f"/api/media/{media_id}/report", headers=reporter, json=body)


def _exhibit(stack: Stack, url: str, name: str, original: bytes) -> Exhibit:
    """An original beside the picture of the largest common size, and what was found in it."""
    after = stack.accepted("GET", url, headers={"Accept": "image/avif"})
    kind = after.headers["Content-Type"].removeprefix("image/").upper()
    media_id = urlsplit(url).path.rpartition("/")[2]
    key = {"Authorization": f"Bearer {stack.environment['MEDIA_API_KEY']}"}
    found = stack.accepted("GET", f"/api/media/analysis/{media_id}", headers=key).json()
    analysis = found["analysis"]
    facts = {name: str(analysis.get(field) or "") for name, field in _SAID.items()}
    facts["Colours"] = ", ".join(one["hex"] for one in (analysis.get("dominant_colors") or [])[:4])
    if "standins" in found:
        facts["Said by"] = "stand-ins, which make it up; the colours are measured"
    return Exhibit(name, {"in": original, f"out, {kind}": after.content}, facts)


def _saying(data: bytes, words: str) -> bytes:
    """A JPEG in whose copyright the stand-in reads what it finds."""
    exif, out = Image.Exif(), io.BytesIO()
    exif[ExifTags.Base.Copyright] = words
    Image.open(io.BytesIO(data)).save(out, "JPEG", quality=90, exif=exif)
    return out.getvalue()
