"""People, plainly drawn: a head, hair, a shirt, and a caption that says what this is.

A person's looks follow from a seed. It is written into the PNG, so that an edit shows the same person again.
"""

import hashlib
from functools import lru_cache
from io import BytesIO

from PIL import Image, ImageDraw, ImageFont, PngImagePlugin, UnidentifiedImageError

_SKINS = ("#ffe0c4", "#f1c296", "#d09868", "#96623e", "#603e2a")
_HAIRS = {"black": "#281e1c", "brown": "#6e4628", "blond": "#e2ba60", "red": "#aa3e20", "grey": "#c8c8cd"}
_SHIRTS = ("#2c56a0", "#aa2c3c", "#28825a", "#e2aa28", "#6e3c96")
_GROUNDS = ("#cee0ec", "#ecdecc", "#d4e8d0", "#e6d6e8")
_CAPTION = "DRAWN BY A STAND-IN"
_TEXT_KEY = "imgpipe-standin"


def seed_of(prompt: str) -> str:
    """What the looks of the person that a prompt describes follow from: the hair that it tells of, and its hash."""
    told = next((word for word in _HAIRS if f"{word} hair" in prompt.lower()), "")
    return f"{told} {hashlib.sha256(prompt.encode()).hexdigest()}"


def seed_in(image: bytes) -> str:
    """The seed that is written into a picture; of any other picture one that goes by its bytes."""
    try:
        with Image.open(BytesIO(image)) as opened:
            return str(opened.info[_TEXT_KEY])
    except (UnidentifiedImageError, OSError, ValueError, KeyError):
        return seed_of(hashlib.sha256(image).hexdigest())


@lru_cache(maxsize=32)
def draw(seed: str, size: tuple[int, int], *, pose: int = 0) -> bytes:
    """One portrait as PNG."""
    return encoded(portrait(seed, size, pose), seed)


@lru_cache(maxsize=32)
def grid(seed: str, size: tuple[int, int]) -> bytes:
    """2 x 2 portraits of one person as PNG, with gutters and a frame that are not quite in the middle."""
    unit = min(size) / 1024
    gutter, frame, aside = round(14 * unit), round(9 * unit), round(5 * unit)
    picture = Image.new("RGB", size, "white")
    columns, rows = (((frame, length // 2 + aside), (length // 2 + aside + gutter, length - frame)) for length in size)
    for pose, (left, right, top, bottom) in enumerate(((*column, *row) for row in rows for column in columns), 1):
        picture.paste(portrait(seed, (right - left, bottom - top), pose), (left, top))
    return encoded(picture, seed)


def encoded(picture: Image.Image, seed: str) -> bytes:
    """The picture as PNG, with the seed written into it."""
    notes = PngImagePlugin.PngInfo()
    notes.add_text(_TEXT_KEY, seed)
    notes.add_text("Description", "Drawn by imgpipe's stand-in. Not a photograph, not a real person.")
    buffer = BytesIO()
    picture.save(buffer, "PNG", compress_level=1, pnginfo=notes)
    return buffer.getvalue()


def portrait(seed: str, size: tuple[int, int], pose: int) -> Image.Image:
    """Head and shoulders: `seed` chooses colours and hair; `pose` moves head and mouth, and changes the background."""
    told, _, digest = seed.rpartition(" ")
    choice = bytes.fromhex(digest)
    hair, higher = _HAIRS[told or list(_HAIRS)[choice[1] % len(_HAIRS)]], choice[3] % 3
    width, height = size
    picture = Image.new("RGB", size, _GROUNDS[pose % len(_GROUNDS)])
    pen, side = ImageDraw.Draw(picture), min(size)
    cx, cy = width * (0.5 + (0.0, -0.03, 0.03, 0.02, -0.02)[pose % 5]), height * 0.5

    def oval(x: float, y: float, rx: float, ry: float, fill: str) -> None:
        box = (cx + (x - rx) * side, cy + (y - ry) * side, cx + (x + rx) * side, cy + (y + ry) * side)
        pen.ellipse(box, fill=fill, outline="#1e1e1e", width=max(2, side // 200))

    oval(0, 0.5, 0.38, 0.24, _SHIRTS[choice[2] % len(_SHIRTS)])
    oval(0, -0.16 + 0.1 * higher, 0.25, 0.24 + 0.08 * higher, hair)
    oval(0, -0.02, 0.2, 0.25, _SKINS[choice[0] % len(_SKINS)])
    for x in (-0.08, 0.08):
        oval(x, -0.05, 0.03, 0.022, "#283c50")
    oval(0, 0.1, 0.06, 0.01 + 0.006 * (pose % 5), "#963232")
    font = ImageFont.load_default(max(10, side // 22))
    at = (width / 2, height - side * 0.03)
    pen.text(at, _CAPTION, "white", font, "mb", stroke_fill="black", stroke_width=max(1, side // 300))
    return picture
