"""People, plainly drawn: a head, hair, a shirt, and a caption that says what this is.

A person is a handful of choices. They are written into the PNG, so that an edit shows the same person again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from io import BytesIO
from typing import Any

from PIL import Image, ImageDraw, ImageFont, PngImagePlugin, UnidentifiedImageError

_SKINS = ((255, 224, 196), (241, 194, 150), (208, 152, 104), (150, 98, 62), (96, 62, 42))
_HAIRS = {
    "black": (40, 30, 28),
    "brown": (110, 70, 40),
    "blond": (226, 186, 96),
    "red": (170, 62, 32),
    "grey": (200, 200, 205),
}
_SHIRTS = ((44, 86, 160), (170, 44, 60), (40, 130, 90), (226, 170, 40), (110, 60, 150))
_GROUNDS = ((206, 224, 236), (236, 222, 204), (212, 232, 208), (230, 214, 232))
_CAPTION = "DRAWN BY A STAND-IN"
_TEXT_KEY = "imgpipe-standin"


@dataclass(frozen=True)
class Person:
    """What tells people apart. `skin` and `shirt` are indices into the palettes above, `hair_style` is 0 to 2."""

    skin: int
    hair: str
    shirt: int
    hair_style: int
    glasses: bool


def person_of(prompt: str) -> Person:
    """The person that a prompt describes: words where they are plain, the prompt's hash for the rest."""
    digest, words = hashlib.sha256(prompt.encode()).digest(), prompt.lower()
    hair = next((word for word in _HAIRS if f"{word} hair" in words), list(_HAIRS)[digest[1] % len(_HAIRS)])
    glasses = "glasses" in words or digest[4] % 4 == 0
    return Person(digest[0] % len(_SKINS), hair, digest[2] % len(_SHIRTS), digest[3] % 3, glasses)


def person_in(image: bytes) -> Person:
    """The person shown in a picture, as written into it; in any other picture somebody who goes by its bytes."""
    try:
        with Image.open(BytesIO(image)) as opened:
            return Person(**json.loads(opened.info[_TEXT_KEY]))
    except (UnidentifiedImageError, OSError, ValueError, TypeError, KeyError):
        return person_of(hashlib.sha256(image).hexdigest())


@lru_cache(maxsize=32)
def draw(person: Person, size: tuple[int, int], *, pose: int = 0) -> bytes:
    """One portrait as PNG."""
    return encoded(portrait(person, size, pose), person)


@lru_cache(maxsize=32)
def grid(person: Person, size: tuple[int, int], prompt: str) -> bytes:
    """2 x 2 portraits of one person as PNG, with gutters and a frame that are not quite in the middle."""
    seed, unit = hashlib.sha256(prompt.encode()).digest(), min(size) / 1024
    gutter, frame = round((8 + seed[0] % 16) * unit), round((seed[1] % 20) * unit)
    picture = Image.new("RGB", size, ((255, 255, 255), (24, 24, 24), (240, 236, 228))[seed[4] % 3])
    cuts = []
    for length, number in zip(size, seed[2:4], strict=True):
        middle = length // 2 + round((number % 25 - 12) * unit) - gutter // 2
        cuts.append([(frame, middle), (middle + gutter, length - frame)])
    for row, (top, bottom) in enumerate(cuts[1]):
        for column, (left, right) in enumerate(cuts[0]):
            cell = portrait(person, (right - left, bottom - top), 1 + 2 * row + column)
            picture.paste(cell, (left, top))
    return encoded(picture, person)


def encoded(picture: Image.Image, person: Person) -> bytes:
    """The picture as PNG, with the person written into it."""
    notes = PngImagePlugin.PngInfo()
    notes.add_text(_TEXT_KEY, json.dumps(asdict(person)))
    notes.add_text("Description", "Drawn by imgpipe's stand-in. Not a photograph, not a real person.")
    buffer = BytesIO()
    picture.save(buffer, "PNG", compress_level=1, pnginfo=notes)
    return buffer.getvalue()


def portrait(person: Person, size: tuple[int, int], pose: int) -> Image.Image:
    """Head and shoulders. `pose` moves the head and the mouth, and changes the background."""
    width, height = size
    picture = Image.new("RGB", size, _GROUNDS[pose % len(_GROUNDS)])
    pen = ImageDraw.Draw(picture)
    side = min(size)
    cx, cy = width * (0.5 + (0.0, -0.03, 0.03, 0.02, -0.02)[pose % 5]), height * 0.5

    def oval(x: float, y: float, rx: float, ry: float, **paint: Any) -> None:
        box = (cx + (x - rx) * side, cy + (y - ry) * side, cx + (x + rx) * side, cy + (y + ry) * side)
        pen.ellipse(box, **paint)

    skin = _SKINS[person.skin]
    outline: dict[str, Any] = {"outline": (30, 30, 30), "width": max(2, side // 200)}
    oval(0, 0.5, 0.38, 0.24, fill=_SHIRTS[person.shirt], **outline)
    oval(0, 0.24, 0.09, 0.12, fill=skin)
    oval(0, -0.16 + 0.1 * person.hair_style, 0.25, 0.24 + 0.08 * person.hair_style, fill=_HAIRS[person.hair])
    oval(0, -0.02, 0.2, 0.25, fill=skin, **outline)
    for x in (-0.08, 0.08):
        oval(x, -0.05, 0.03, 0.022, fill=(40, 60, 80))
        if person.glasses:
            oval(x, -0.05, 0.06, 0.05, outline=(20, 20, 20), width=max(2, side // 120))
    oval(0, 0.1, 0.06, 0.01 + 0.006 * (pose % 5), fill=(150, 50, 50))
    font = ImageFont.load_default(max(10, side // 22))
    ink: dict[str, Any] = {"fill": (255, 255, 255), "stroke_fill": (0, 0, 0), "stroke_width": max(1, side // 300)}
    pen.text((width / 2, height - side * 0.03), _CAPTION, anchor="mb", font=font, **ink)
    return picture
