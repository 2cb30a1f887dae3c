"""The steps of a listing's image, one function each, in the order of LISTINGS_STEPS.

To add a step, write a function with `@step` and put its name into LISTINGS_STEPS. Steps up to `encode` work on pixels
in a worker process, which a hostile file may crash. Steps after it (`@delivery`) store the finished file, in the
process that has the credentials.

The default order is also the fastest: JPEGs are decoded at the fraction that `resize` needs, and colours are converted
after the resize.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from imgpipe_orchestration.errors import SettingsError

if TYPE_CHECKING:
    from PIL import Image

    from imgpipe_orchestration.listings.animation import Frame
    from imgpipe_orchestration.settings import Settings
    from imgpipe_orchestration.storage.objects import Bucket

CACHE_SECONDS = 31_536_000
"""How long clients may keep a finished WebP: a year."""
WEBP_QUALITY = 80
_NICENESS = 10
MOST_FRAMES = 100
"""Most frames that an animation keeps; a longer one is thinned."""
MAX_HEIGHT = 640  # of the document
MAX_WIDTH = 16383
"""The widest a WebP can be (its container's specification: 14 bits)."""


@dataclass(frozen=True, slots=True)
class Options:
    """Parameters of the steps. Pickled into the worker processes."""

    steps: tuple[str, ...]
    max_height: int
    quality: int
    max_frames: int
    watermark_text: str


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


Step = Callable[[Picture, Options], Picture]
Delivery = Callable[[File, str, "Bucket", Options], None]

STEPS: dict[str, Step] = {}
DELIVERIES: dict[str, Delivery] = {}


def step(function: Step) -> Step:
    """Make a function a step, under its own name."""
    STEPS[function.__name__] = function
    return function


def delivery(function: Delivery) -> Delivery:
    """Make a function a step that comes after `encode`, under its own name."""
    DELIVERIES[function.__name__] = function
    return function


@step
def decode(picture: Picture, options: Options) -> Picture:
    """The original's pixels, 8 bits a channel; every frame of an animation up to the limit.

    Raises:
        BadImage, TooLarge: as `imaging.reading.opening`.
    """
    from imgpipe_orchestration.imaging.colour.depth import to_eight_bits
    from imgpipe_orchestration.imaging.reading import metadata
    from imgpipe_orchestration.imaging.reading.opening import decode as decoded
    from imgpipe_orchestration.imaging.reading.opening import open_original
    from imgpipe_orchestration.listings import animation

    original = open_original(picture.original)
    opened = replace(
        picture, orientation=original.orientation, exif=metadata.exif_block(metadata.ownership(original.image))
    )
    if original.sniffed.animated:
        return replace(
            opened, frames=animation.frames(original, options.max_frames), plays=animation.plays(original.image)
        )
    enough = _fitting(*original.upright_size, options) if "resize" in options.steps else None
    return replace(opened, frames=[animation.Frame(to_eight_bits(decoded(original, enough)))])


@step
def orient(picture: Picture, options: Options) -> Picture:
    """Rotates and mirrors the pixels as the EXIF orientation says."""
    from imgpipe_orchestration.imaging.reading.orientation import upright

    orientation = picture.orientation
    return replace(picture.each(lambda image: upright(image, orientation)), orientation=1)


@step
def resize(picture: Picture, options: Options) -> Picture:
    """At most MAX_HEIGHT high, of its own shape, and never enlarged."""
    from imgpipe_orchestration.imaging.resize import shrink_to

    return picture.each(lambda image: shrink_to(image, *_fitting(image.width, image.height, options)))


@step
def watermark(picture: Picture, options: Options) -> Picture:
    """LISTINGS_WATERMARK_TEXT in the lower right corner; off by default, an example of an additional step."""
    from imgpipe_orchestration.imaging.colour.to_srgb import to_srgb

    def marked(image: Image.Image) -> Image.Image:
        from PIL import Image, ImageDraw, ImageFont

        base, _ = to_srgb(image)
        size = max(12, base.height // 16)
        layer = Image.new("RGBA", base.size)
        draw = ImageDraw.Draw(layer)
        corner = (base.width - size // 2, base.height - size // 2)
        font = ImageFont.load_default(size)
        draw.text(corner, options.watermark_text, (255, 255, 255, 170), font, "rd", stroke_width=1, stroke_fill=_SHADE)
        return Image.alpha_composite(base.convert("RGBA"), layer)

    return picture.each(marked)


@step
def encode(picture: Picture, options: Options) -> Picture:
    """WebP in sRGB, animated when the original is; of the metadata only `Picture.exif` is kept."""
    from imgpipe_orchestration.imaging.colour.alpha import drop_opaque_alpha
    from imgpipe_orchestration.imaging.colour.to_srgb import to_srgb
    from imgpipe_orchestration.imaging.encoding.encode import encode as encoded
    from imgpipe_orchestration.imaging.recipe import Recipe
    from imgpipe_orchestration.listings import animation

    frames = list(picture.each(lambda image: to_srgb(image)[0]).frames)
    first = frames[0].image
    if len(frames) > 1:
        data = animation.encode(frames, quality=options.quality, plays=picture.plays, exif=picture.exif)
    else:
        recipe = Recipe(sizes=(), webp_method=animation.METHOD, webp_method_large=animation.METHOD)
        data = encoded(drop_opaque_alpha(first), "webp", options.quality, recipe, exif=picture.exif)
    return replace(picture, frames=(), file=File(data, first.width, first.height, len(frames)))


@delivery
def upload(file: File, name: str, bucket: Bucket, options: Options) -> None:
    """Stores the file under the name in its URL.

    Raises:
        BackendUnavailable: the object store is away.
    """
    caching = f"public, max-age={CACHE_SECONDS}"
    bucket.put(name, file.data, content_type="image/webp", cache_control=caching)


def options_of(settings: Settings) -> Options:
    """The steps and their parameters.

    Raises:
        SettingsError: LISTINGS_STEPS names an unknown step, a step twice, or an order that makes no file; or the font
            lacks a character of the watermark's text.
    """
    names = tuple(name.strip() for name in settings.listings_steps.split(",") if name.strip())
    known = {**STEPS, **DELIVERIES}
    for name in names:
        if name not in known:
            raise _bad_steps(f"there is no step {name!r}; there are {', '.join(known)}")
    if len(set(names)) != len(names):
        raise _bad_steps("a step is named twice")
    if names[:1] != ("decode",):
        raise _bad_steps("the first step must be decode")
    if "encode" not in names or "upload" not in names:
        raise _bad_steps("encode and upload are needed")
    last = names.index("encode") + 1
    if any(name in DELIVERIES for name in names[:last]) or any(name in STEPS for name in names[last:]):
        raise _bad_steps(f"before encode come {', '.join(STEPS)}, after it {', '.join(DELIVERIES)}")
    if "watermark" in names and (strange := "".join(sorted(set(settings.listings_watermark_text) - _DRAWN))):
        raise SettingsError(
            f"LISTINGS_WATERMARK_TEXT: the font has no {strange!r}, only ASCII and © « ° ± · » ™ and the like",
            field="LISTINGS_WATERMARK_TEXT",
        )
    return Options(
        steps=names,
        max_height=MAX_HEIGHT,
        quality=WEBP_QUALITY,
        max_frames=MOST_FRAMES,
        watermark_text=settings.listings_watermark_text,
    )


def make(original: bytes, options: Options) -> File:
    """All steps on pixels: the original's bytes to the finished file. Runs in a worker process.

    Raises:
        BadImage, TooLarge: the original cannot be used; a retry would not help.
    """
    picture = Picture(original)
    for name in options.steps:
        if name in STEPS:
            picture = STEPS[name](picture, options)
    assert picture.file is not None  # noqa: S101 - `options_of` admits no list of steps without encode
    return picture.file


def make_aside(original: bytes, options: Options) -> File:
    """As `make`, with a lower priority than the gateway on the same machine."""
    if os.getpriority(os.PRIO_PROCESS, 0) < _NICENESS:
        os.setpriority(os.PRIO_PROCESS, 0, _NICENESS)
    return make(original, options)


def deliver(file: File, name: str, bucket: Bucket, options: Options) -> None:
    """All steps after `encode`, in their order."""
    for step_name in options.steps:
        if step_name in DELIVERIES:
            DELIVERIES[step_name](file, name, bucket, options)


_SHADE = (0, 0, 0, 110)
_DRAWN = {*map(chr, range(ord(" "), ord("~") + 1)), *"©«°±´·»‘’“”…‹›⁄™ﬁﬂ"}
"""What Pillow's own font has; for everything else it draws the same empty box."""


def _fitting(width: int, height: int, options: Options) -> tuple[int, int]:
    from imgpipe_orchestration.imaging.geometry import fit_within

    return fit_within(width, height, MAX_WIDTH, options.max_height)


def _bad_steps(what: str) -> SettingsError:
    return SettingsError(f"LISTINGS_STEPS: {what}", field="LISTINGS_STEPS")
