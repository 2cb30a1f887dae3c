"""The steps of a listing's image, one function each, in the order of STEPS.

To add a step, write a function and put it into STEPS. The steps work on pixels in a worker process, which a hostile
file may crash; `store` then uploads the file from the process that has the credentials.

The order is also the fastest: JPEGs are decoded at the fraction that `resize` needs, and colours are converted after
the resize.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from PIL import Image

from imgpipe_orchestration.imaging.colour import drop_opaque_alpha, to_eight_bits, to_srgb
from imgpipe_orchestration.imaging.geometry import fit_within
from imgpipe_orchestration.imaging.reading import metadata, opening
from imgpipe_orchestration.imaging.reading.sniff import sniff
from imgpipe_orchestration.imaging.resize import shrink_to
from imgpipe_orchestration.listings import animation
from imgpipe_orchestration.listings.animation import Frame

if TYPE_CHECKING:  # the workers that run the steps have no database
    from imgpipe_orchestration.storage.objects import Bucket

CACHE_SECONDS = 31_536_000
"""How long clients may keep a finished WebP: a year."""
WEBP_QUALITY = 80
_NICENESS = 10
MOST_FRAMES = 100
"""Most frames that an animation keeps; later ones are left out. Fewer than 128, or all milliseconds of the longest
animation would not fit into libwebp's int."""
MAX_HEIGHT = 640  # of the document
MAX_WIDTH = 16383
"""The widest a WebP can be (its container's specification: 14 bits)."""


@dataclass(frozen=True, slots=True)
class File:
    """The finished WebP; width and height in pixels."""

    data: bytes
    width: int
    height: int
    frames: int


@dataclass(frozen=True, slots=True)
class Picture:
    """What each step gets and returns.

    `frames` can be iterated once: an animation is decoded and resized frame by frame, so that it is never in memory at
    its full size.
    """

    original: bytes
    frames: Iterable[Frame] = ()
    orientation: int = 1
    """EXIF's, 1 to 8; 1 once `orient` has applied it."""
    plays: int = 0
    """How often an animation plays; 0 is for ever."""
    exif: bytes = b""
    """The metadata that is kept: author and copyright, as an EXIF block."""
    file: File | None = None

    def each(self, change: Callable[[Image.Image], Image.Image]) -> Picture:
        """The picture with `change` done to every frame."""
        return replace(self, frames=(replace(frame, image=change(frame.image)) for frame in self.frames))


def decode(picture: Picture) -> Picture:
    """The original's pixels, 8 bits a channel; every frame of an animation up to the limit.

    Raises:
        BadImage, TooLarge: as `imaging.reading.opening`.
    """
    original = sniff(picture.original)
    opened = replace(
        picture, orientation=original.orientation, exif=metadata.exif_block(metadata.ownership(original.image))
    )
    if original.animated:
        return replace(opened, frames=animation.frames(original, MOST_FRAMES), plays=animation.plays(original.image))
    enough = _fitting(*original.upright_size)
    return replace(opened, frames=[Frame(to_eight_bits(opening.decode(original, enough)))])


def orient(picture: Picture) -> Picture:
    """Rotates and mirrors the pixels as the EXIF orientation says."""
    orientation = picture.orientation
    return replace(picture.each(lambda image: metadata.upright(image, orientation)), orientation=1)


def resize(picture: Picture) -> Picture:
    """At most MAX_HEIGHT high, of its own shape, and never enlarged."""
    return picture.each(lambda image: shrink_to(image, *_fitting(image.width, image.height)))


def encode(picture: Picture) -> Picture:
    """WebP in sRGB, animated when the original is; of the metadata only `Picture.exif` is kept."""
    frames = list(picture.each(lambda image: drop_opaque_alpha(to_srgb(image)[0])).frames)
    data = animation.encode(frames, quality=WEBP_QUALITY, plays=picture.plays, exif=picture.exif)
    return replace(picture, frames=(), file=File(data, *frames[0].image.size, len(frames)))


STEPS: tuple[Callable[[Picture], Picture], ...] = (decode, orient, resize, encode)


def make(original: bytes) -> File:
    """All steps on pixels: the original's bytes to the finished file. Runs in a worker process.

    Raises:
        BadImage, TooLarge: the original cannot be used; a retry would not help.
    """
    picture = Picture(original)
    for step in STEPS:
        picture = step(picture)
    assert picture.file is not None  # noqa: S101 - `encode` is among the steps
    return picture.file


def make_aside(original: bytes) -> File:
    """As `make`, with a lower priority than the gateway on the same machine."""
    if os.getpriority(os.PRIO_PROCESS, 0) < _NICENESS:
        os.setpriority(os.PRIO_PROCESS, 0, _NICENESS)
    return make(original)


def store(file: File, name: str, bucket: Bucket) -> None:
    """Upload the file under the name in its URL.

    Raises:
        BackendUnavailable: the object store is away.
    """
    caching = f"public, max-age={CACHE_SECONDS}"
    bucket.put(name, file.data, content_type="image/webp", cache_control=caching)


def _fitting(width: int, height: int) -> tuple[int, int]:
    return fit_within(width, height, MAX_WIDTH, MAX_HEIGHT)
