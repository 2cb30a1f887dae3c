"""Two users upload photographs; each arrives once its smart URL gives an image to who asks for AVIF, WebP or JPEG."""

import io
import time
from typing import Any
from urllib.parse import urlsplit

from PIL import ExifTags, Image

from imgpipe_orchestration.devstack import photos
from imgpipe_orchestration.devstack.demo.scenario import Exhibit, Scenario, Stack

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


class MediaScenario(Scenario):
    """`PATCH /users/me` with several files at once, then `GET /users/me` until every temp URL is a smart one."""

    pipeline = "media"
    items = 7

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack)
        self._originals: dict[tuple[int, str], tuple[str, bytes]] = {}
        """By user and field."""
        self._arrived: dict[tuple[int, str], str] = {}
        # Users of this moment: a second demo on the same data must not find the first one's images.
        self._first = int(time.time())
        self._doubtful = self._first + 2_000_000_000
        """The user whose images are flagged, held and reported."""

    def feed(self) -> None:
        cup = "object(0.29 0.04 0.68 0.71)"  # where the stand-in sees it
        first = {
            "profile_image": ("astronaut.jpg", photos.jpeg("astronaut")),
            "header_image": ("stars.jpg", photos.jpeg("hubble", width=2400)),
            "logo_image": ("logo.png", photos.LOGO.read_bytes()),
            "product_image": ("coffee.jpg", _saying(photos.jpeg("coffee", width=2000), cup)),
        }
        second = {
            "profile_image": ("cat.jpg", photos.jpeg("chelsea")),
            "site_image": ("wall.jpg", photos.jpeg("brick", width=2400)),
            "event_image": ("retina.jpg", photos.jpeg("retina")),
        }
        # First, so that they are done when the others are. The stand-in reads a verdict in a copyright.
        doubtful = {
            "product_image": ("flagged.jpg", _saying(photos.jpeg("coffee"), f"moderation(sexual=0.7) {cup}")),
            "site_image": ("held.jpg", photos.jpeg("hubble")),
            "event_image": ("reported.jpg", photos.jpeg("chelsea")),
        }
        self._upload(self._doubtful, doubtful)
        for user_id, files in ((self._first, first), (self._first + 1_000_000_000, second)):
            self._upload(user_id, files)
            self._originals |= {(user_id, field): file for field, file in files.items()}

    def _upload(self, user_id: int, files: dict[str, tuple[str, bytes]]) -> None:
        headers, data = self.stack.user_headers(user_id), {"first_name": "Demo"}
        self.stack.accepted("PATCH", "/users/me", headers=headers, files=files, data=data)

    def _profile(self, user_id: int) -> dict[str, Any]:
        return dict(self.stack.accepted("GET", "/users/me", headers=self.stack.user_headers(user_id)).json())

    def look(self) -> None:
        profiles = {user_id: self._profile(user_id) for user_id, _ in self._originals}
        for user_id, field in [key for key in self._originals if key not in self._arrived]:
            url = _shown(profiles[user_id], field)
            if "/temp_images/" not in url and self._served(url):
                self._arrived[user_id, field] = url
        self.result.arrived = len(self._arrived)
        self.result.waiting_for = f"{self.items - len(self._arrived)} smart URLs"

    def _served(self, url: str) -> bool:
        """Whether the smart URL gives an image to who asks for any of the formats."""
        answers = [self.stack.request("GET", url, headers={"Accept": wanted}) for wanted in _FORMATS]
        return all(one.ok and one.headers["Content-Type"].startswith("image/") for one in answers)

    def _report(self) -> None:
        """Report two images of `_doubtful`, one of them so often that it is held back."""
        profile = self._profile(self._doubtful)
        for field, times in (("site_image", 3), ("event_image", 1)):
            url = _shown(profile, field)
            if "/temp_images/" in url:  # not ready yet
                continue
            media_id = urlsplit(url).path.rpartition("/")[2]
            for number in range(times):
                reporter, body = self.stack.user_headers(self._doubtful + 1 + number), {"reason": "It is mine."}
                self.stack.accepted("POST", f"/api/media/{media_id}/report", headers=reporter, json=body)

    def show(self) -> list[Exhibit]:
        self._report()
        return [self._exhibit(url, *self._originals[key]) for key, url in self._arrived.items()]

    def _exhibit(self, url: str, name: str, original: bytes) -> Exhibit:
        """An original beside the picture of the largest common size, and what was found in it."""
        after = self.stack.accepted("GET", url, headers={"Accept": "image/avif"})
        kind = after.headers["Content-Type"].removeprefix("image/").upper()
        media_id = urlsplit(url).path.rpartition("/")[2]
        key = {"Authorization": f"Bearer {self.stack.environment['MEDIA_API_KEY']}"}
        found = self.stack.accepted("GET", f"/api/images/{media_id}/analysis", headers=key).json()
        analysis = found["analysis"]
        facts = {name: str(analysis.get(field) or "") for name, field in _SAID.items()}
        facts["Colours"] = ", ".join(one["hex"] for one in (analysis.get("dominant_colors") or [])[:4])
        if found["standins"]:
            facts["Said by"] = "stand-ins, which make it up; the colours are measured"
        return Exhibit(name, {"in": original, f"out, {kind}": after.content}, facts)


def _saying(data: bytes, words: str) -> bytes:
    """A JPEG in whose copyright the stand-in reads what it finds."""
    exif, out = Image.Exif(), io.BytesIO()
    exif[ExifTags.Base.Copyright] = words
    Image.open(io.BytesIO(data)).save(out, "JPEG", quality=90, exif=exif)
    return out.getvalue()


def _shown(profile: dict[str, Any], field: str) -> str:
    value = profile[_COLUMNS[field]]
    if isinstance(value, list):
        value = value[0]["media_path"] if value else ""
    return str(value or "/temp_images/")
