"""Gateways that judge, pictures that say what a stand-in finds in them, and every way by which an image could leave."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import requests
from PIL import ExifTags, Image

from imgpipe_orchestration.listings.runs import Drained, drain
from imgpipe_orchestration.operations import existing
from imgpipe_orchestration_tests.conftest import StandInAccess
from imgpipe_orchestration_tests.lifecycle.conftest import call
from imgpipe_orchestration_tests.media.conftest import Gateway, make_gateway, picture

__all__ = ["make_gateway"]

USER = 456
OTHER, STRANGER = 7, 99


@pytest.fixture
def holding(make_gateway: Callable[..., Gateway], standins: StandInAccess) -> Gateway:
    """A gateway that shows nothing before its verdict."""
    return make_gateway(**standins.seeing, moderation="hold", partner_timeout_seconds=30)


@pytest.fixture
def flagging(make_gateway: Callable[..., Gateway], standins: StandInAccess) -> Gateway:
    """A gateway that lists what is doubtful."""
    return make_gateway(**standins.seeing, partner_timeout_seconds=30)


def saying(words: str, *, seed: int = 1) -> bytes:
    """A harmless picture in whose copyright a stand-in reads what it finds."""
    image = Image.open(io.BytesIO(picture(seed=seed)))
    exif = Image.Exif()
    exif[ExifTags.Base.Copyright] = f"moderation({words})"
    out = io.BytesIO()
    image.save(out, "JPEG", exif=exif)
    return out.getvalue()


@dataclass
class Sent:
    """An uploaded image: its upload's id, and the paths by which it could leave."""

    gateway: Gateway
    pending_id: int
    temp: str
    listing: str

    @property
    def media_id(self) -> int:
        rows = self.gateway.rows("select id from media_files where main_api_id = :id", id=self.pending_id)
        return int(rows[0].id) if rows else 0

    def paths(self) -> list[str]:
        """Where it could be read, but for what takes a body."""
        paths = [self.temp, self.listing]
        if item := self.media_id:
            paths += [f"/serve/{item}", f"/api/images/{item}?size=thumbnail&format=jpeg", f"/serve/{item}?explain=true"]
            paths += [f"/picture/{item}", f"/api/images/{item}/info", f"/api/images/{item}/analysis"]
        return paths

    def shown(self) -> dict[str, int]:
        """The status of every way by which strangers could get at it, but for those that hold it back (403) or do not
        know it yet (404)."""
        found = {path: self.gateway.get(path) for path in self.paths()}
        if self.media_id:
            body = {"ids": [self.media_id], "action": "download"}
            found["ZIP of another user"] = call(self.gateway, "POST", "/api/media/bulk", STRANGER, json=body)
        for answer in found.values():
            if answer.status_code == 403:
                assert answer.json()["code"] == "held"
                assert answer.headers["cache-control"] == "no-store"
        return {path: answer.status_code for path, answer in found.items() if answer.status_code not in {403, 404}}


def send(gateway: Gateway, data: bytes, *, field: str = "product_image", user: int = USER) -> Sent:
    """Upload a picture to media and to listings."""
    image = gateway.upload(user, **{field: data}).json()["images"][0]
    form = {"images": ("a.jpg", data, "image/jpeg")}
    answer = requests.post(
        f"{gateway.url}/api/upload/listing_image", files=form, headers=gateway.as_user(user), timeout=30
    )
    name = answer.json()["data"]["images"][0]["file_name"]
    path = f"/storage/v1/object/public/listing-images/{name}"
    return Sent(gateway, image["id"], image["image_path"], path)


def process(gateway: Gateway, owner: str = "run-1") -> None:
    """What the runs of media and listings do, and then moderation's own."""
    gateway.run_due(owner)
    drain(gateway.services, owner, Drained())
    gateway.services.claims.hasten(existing.JUDGE)
    existing.run(gateway.services, owner)


def verdict(gateway: Gateway, media_id: int) -> dict[str, Any]:
    path = f"/api/media/analysis/{media_id}"
    answer = gateway.session.get(gateway.url + path, headers=gateway.as_worker, timeout=30)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json().get("moderation")
    return found
