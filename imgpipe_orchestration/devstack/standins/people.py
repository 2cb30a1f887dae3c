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

Colour = tuple[int, int, int]

_SKINS: tuple[Colour, ...] = ((255, 224, 196), (241, 194, 150), (208, 152, 104), (150, 98, 62), (96, 62, 42))
_HAIRS: tuple[Colour, ...] = ((40, 30, 28), (110, 70, 40), (226, 186, 96), (170, 62, 32), (200, 200, 205))
_SHIRTS: tuple[Colour, ...] = ((44, 86, 160), (170, 44, 60), (40, 130, 90), (226, 170, 40), (110, 60, 150))
_GROUNDS: tuple[Colour, ...] = ((206, 224, 236), (236, 222, 204), (212, 232, 208), (230, 214, 232))
_CAPTION = "DRAWN BY A STAND-IN"
_TEXT_KEY = "imgpipe-standin"


@dataclass(frozen=True)
class Person:
    """Indices into the palettes above, and what else tells people apart. `hair_style` is 0 to 2."""

    skin: int
    hair: int
    shirt: int
    hair_style: int
    glasses: bool


def person_of(prompt: str) -> Person:
    """The person that a prompt describes: words where they are plain, the prompt's hash for the rest."""
    digest = hashlib.sha256(prompt.encode()).digest()
    words = prompt.lower()
    hair = next((i for i, word in enumerate(("black", "brown", "blond", "red", "grey")) if f"{word} hair" in words), -1)
    return Person(
        skin=digest[0] % len(_SKINS),
        hair=hair if hair >= 0 else digest[1] % len(_HAIRS),
        shirt=digest[2] % len(_SHIRTS),
        hair_style=digest[3] % 3,
        glasses="glasses" in words or digest[4] % 4 == 0,
    )


def person_in(image: bytes) -> Person:
    """The person shown in a picture, as written into it; in any other picture somebody who goes by its bytes."""
    try:
        with Image.open(BytesIO(image)) as opened:
            return Person(**json.loads(opened.info[_TEXT_KEY]))
    except (UnidentifiedImageError, OSError, ValueError, TypeError, KeyError):
        return person_of(hashlib.sha256(image).hexdigest())


def draw(person: Person, size: tuple[int, int], *, blank: bool = False, pose: int = 0) -> bytes:
    """One portrait as PNG; a flat area when `blank`."""
    return _encoded(person, size, 0 if blank else 1, pose, "")


def grid(person: Person, size: tuple[int, int], prompt: str, *, rows: int = 2) -> bytes:
    """`rows` x 2 portraits of one person as PNG, with gutters and a frame that are not quite in the middle."""
    return _encoded(person, size, 2 * rows, 0, hashlib.sha256(prompt.encode()).hexdigest())


@lru_cache(maxsize=32)
def _encoded(person: Person, size: tuple[int, int], cells: int, pose: int, seed: str) -> bytes:
    if cells == 0:
        picture = Image.new("RGB", size, (200, 200, 200))
    elif cells == 1:
        picture = _portrait(person, size, pose)
    else:
        picture = _grid(person, size, cells // 2, bytes.fromhex(seed))
    notes = PngImagePlugin.PngInfo()
    notes.add_text(_TEXT_KEY, json.dumps(asdict(person)))
    notes.add_text("Description", "Drawn by imgpipe's stand-in. Not a photograph, not a real person.")
    buffer = BytesIO()
    picture.save(buffer, "PNG", compress_level=1, pnginfo=notes)
    return buffer.getvalue()


def _grid(person: Person, size: tuple[int, int], rows: int, seed: bytes) -> Image.Image:
    width, height = size
    unit = min(size) / 1024
    gutter, frame = round((8 + seed[0] % 16) * unit), round((seed[1] % 20) * unit)
    shift = (round((seed[2] % 25 - 12) * unit), round((seed[3] % 25 - 12) * unit))
    ink = ((255, 255, 255), (24, 24, 24), (240, 236, 228))[seed[4] % 3]
    picture = Image.new("RGB", size, ink)
    columns = _cuts(frame, width - frame, 2, gutter, shift[0])
    lines = _cuts(frame, height - frame, rows, gutter, shift[1])
    for row, (top, bottom) in enumerate(lines):
        for column, (left, right) in enumerate(columns):
            cell = _portrait(person, (right - left, bottom - top), 1 + 2 * row + column)
            picture.paste(cell, (left, top))
    return picture


def _cuts(start: int, end: int, parts: int, gutter: int, shift: int) -> list[tuple[int, int]]:
    if parts == 1:
        return [(start, end)]
    middle = (start + end) // 2 + shift
    return [(start, middle - gutter // 2), (middle - gutter // 2 + gutter, end)]


def _portrait(person: Person, size: tuple[int, int], pose: int) -> Image.Image:
    """Head and shoulders. `pose` moves the head and the mouth, and changes the background."""
    width, height = size
    picture = Image.new("RGB", size, _GROUNDS[pose % len(_GROUNDS)])
    pen = ImageDraw.Draw(picture)
    side = min(size)
    cx, cy = width * (0.5 + (0.0, -0.03, 0.03, 0.02, -0.02)[pose % 5]), height * 0.5

    def oval(x: float, y: float, rx: float, ry: float, **paint: Any) -> None:
        box = (cx + (x - rx) * side, cy + (y - ry) * side, cx + (x + rx) * side, cy + (y + ry) * side)
        pen.ellipse(box, **paint)

    skin, hair, shirt = _SKINS[person.skin], _HAIRS[person.hair], _SHIRTS[person.shirt]
    outline: dict[str, Any] = {"outline": (30, 30, 30), "width": max(2, side // 200)}
    oval(0, 0.5, 0.38, 0.24, fill=shirt, **outline)
    oval(0, 0.24, 0.09, 0.12, fill=skin)
    oval(0, -0.16 + 0.1 * person.hair_style, 0.25, 0.24 + 0.08 * person.hair_style, fill=hair)
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
