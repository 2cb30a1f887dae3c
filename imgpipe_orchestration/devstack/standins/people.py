"""People, plainly drawn: a head, hair, a shirt, and a caption that says what this is.

A person is a handful of choices. They are written into the PNG, so that an edit shows the same person again.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from io import BytesIO

from PIL import Image, ImageDraw, ImageFont, PngImagePlugin, UnidentifiedImageError

_SKINS = ("#ffe0c4", "#f1c296", "#d09868", "#96623e", "#603e2a")
_HAIRS = {"black": "#281e1c", "brown": "#6e4628", "blond": "#e2ba60", "red": "#aa3e20", "grey": "#c8c8cd"}
_SHIRTS = ("#2c56a0", "#aa2c3c", "#28825a", "#e2aa28", "#6e3c96")
_GROUNDS = ("#cee0ec", "#ecdecc", "#d4e8d0", "#e6d6e8")
_CAPTION = "DRAWN BY A STAND-IN"
_TEXT_KEY = "imgpipe-standin"


@dataclass(frozen=True)
class Person:
    """What tells people apart: colours, and how high the hair is, 0 to 2."""

    skin: str
    hair: str
    shirt: str
    hair_style: int


def person_of(prompt: str) -> Person:
    """The person that a prompt describes: the hair where it is told, the prompt's hash for the rest."""
    digest = hashlib.sha256(prompt.encode()).digest()
    told = next((word for word in _HAIRS if f"{word} hair" in prompt.lower()), list(_HAIRS)[digest[1] % len(_HAIRS)])
    return Person(_SKINS[digest[0] % len(_SKINS)], _HAIRS[told], _SHIRTS[digest[2] % len(_SHIRTS)], digest[3] % 3)


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
def grid(person: Person, size: tuple[int, int]) -> bytes:
    """2 x 2 portraits of one person as PNG, with gutters and a frame that are not quite in the middle."""
    unit = min(size) / 1024
    gutter, frame, aside = round(14 * unit), round(9 * unit), round(5 * unit)
    picture = Image.new("RGB", size, "white")
    columns, rows = (((frame, length // 2 + aside), (length // 2 + aside + gutter, length - frame)) for length in size)
    for pose, (left, right, top, bottom) in enumerate(((*column, *row) for row in rows for column in columns), 1):
        picture.paste(portrait(person, (right - left, bottom - top), pose), (left, top))
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
    pen, side = ImageDraw.Draw(picture), min(size)
    cx, cy = width * (0.5 + (0.0, -0.03, 0.03, 0.02, -0.02)[pose % 5]), height * 0.5

    def oval(x: float, y: float, rx: float, ry: float, fill: str) -> None:
        box = (cx + (x - rx) * side, cy + (y - ry) * side, cx + (x + rx) * side, cy + (y + ry) * side)
        pen.ellipse(box, fill=fill, outline="#1e1e1e", width=max(2, side // 200))

    oval(0, 0.5, 0.38, 0.24, person.shirt)
    oval(0, -0.16 + 0.1 * person.hair_style, 0.25, 0.24 + 0.08 * person.hair_style, person.hair)
    oval(0, -0.02, 0.2, 0.25, person.skin)
    for x in (-0.08, 0.08):
        oval(x, -0.05, 0.03, 0.022, "#283c50")
    oval(0, 0.1, 0.06, 0.01 + 0.006 * (pose % 5), "#963232")
    font = ImageFont.load_default(max(10, side // 22))
    at = (width / 2, height - side * 0.03)
    pen.text(at, _CAPTION, "white", font, "mb", stroke_fill="black", stroke_width=max(1, side // 300))
    return picture
