"""2x2 grids whose seams are known: shifted, with and without gutters, frames, borders, blur and JPEG noise."""

import io
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from imgpipe_orchestration.imaging.geometry import PixelBox

Colour = tuple[int, int, int]
INKS: tuple[Colour, ...] = ((255, 255, 255), (0, 0, 0), (24, 24, 24), (240, 236, 228), (128, 128, 128), (200, 30, 60))


@dataclass(frozen=True)
class Sample:
    """A grid and where its four pictures lie, without their borders."""

    image: Image.Image
    cells: tuple[PixelBox, ...]


def sample(number: int, size: int = 2048) -> Sample:
    """The grid of this number: always the same one."""
    dice = random.Random(number)
    unit = size / 2048
    gutter = round(dice.choice((0, 0, 3, 8, 16, 40, 90)) * unit)
    frame = round(dice.choice((0, 0, 4, 20, 60, 110)) * unit)
    border = round(dice.choice((0, 0, 0, 6, 20)) * unit)
    shift = (round(dice.uniform(-0.08, 0.08) * size), round(dice.uniform(-0.08, 0.08) * size))
    ink, border_ink = dice.choice(INKS), dice.choice(INKS)
    image = Image.new("RGB", (size, size), ink)
    middle = [size // 2 + offset for offset in shift]
    spans = [((frame, m - gutter // 2), (m - gutter // 2 + gutter, size - frame)) for m in middle]
    person = _person(dice)
    cells: list[PixelBox] = []
    for top, bottom in spans[1]:
        for left, right in spans[0]:
            ImageDraw.Draw(image).rectangle((left, top, right - 1, bottom - 1), fill=border_ink)
            box = (left + border, top + border, right - border, bottom - border)
            image.paste(_picture(dice, person, (box[2] - box[0], box[3] - box[1])), box[:2])
            cells.append(box)
    softened = dice.choice((0.0, 0.0, 0.7, 1.2))
    if softened:
        image = image.filter(ImageFilter.GaussianBlur(softened))
    quality = dice.choice((None, None, 90, 75))
    if quality:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        image = Image.open(file).convert("RGB")
    return Sample(image, tuple(cells))


def right(cell: PixelBox, box: PixelBox, *, slack: int = 3) -> bool:
    """Whether `box`, the square that was cut, shows only `cell` and nearly all that a square of it can show."""
    inside = (
        box[0] >= cell[0] - slack
        and box[1] >= cell[1] - slack
        and box[2] <= cell[2] + slack
        and box[3] <= cell[3] + slack
    )
    side = min(cell[2] - cell[0], cell[3] - cell[1])
    return inside and min(box[2] - box[0], box[3] - box[1]) >= 0.97 * side


def _person(dice: random.Random) -> dict[str, Colour]:
    def colour(low: int, high: int) -> Colour:
        return (dice.randint(low, high), dice.randint(low, high), dice.randint(low, high))

    return {"skin": colour(120, 235), "hair": colour(10, 120), "shirt": colour(20, 220), "ground": colour(90, 240)}


def _picture(dice: random.Random, person: dict[str, Colour], size: tuple[int, int]) -> Image.Image:
    """Head and shoulders before a ground that is plain, graded, textured or a scene."""
    width, height = size
    kind = dice.choice(("plain", "same", "graded", "texture", "scene"))
    ground = person["ground"] if kind == "same" else tuple(dice.randint(60, 245) for _ in range(3))
    picture = Image.new("RGB", size, (ground[0], ground[1], ground[2]))
    if kind == "graded":
        mask = Image.linear_gradient("L").resize(size)
        picture = Image.composite(picture, Image.new("RGB", size, tuple(max(0, c - 60) for c in ground)), mask)  # type: ignore[arg-type]
    elif kind == "texture":
        noise = np.random.default_rng(dice.randint(0, 9999)).normal(0, 14, (height, width, 1))
        picture = Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    if kind == "scene":
        for _ in range(14):
            x, y = dice.randint(-80, width), dice.randint(-80, height)
            w, h = dice.randint(20, width // 2), dice.randint(20, height // 2)
            pen.rectangle((x, y, x + w, y + h), fill=tuple(dice.randint(40, 240) for _ in range(3)))
    side = min(size)
    cx, cy = width * dice.uniform(0.42, 0.58), height * dice.uniform(0.44, 0.54)
    for x, y, rx, ry, part in (
        (0, 0.52, 0.42, 0.26, "shirt"),
        (0, 0.22, 0.1, 0.14, "skin"),
        (0, -0.12, 0.25, 0.26, "hair"),
        (0, -0.02, 0.19, 0.25, "skin"),
    ):
        box = (cx + (x - rx) * side, cy + (y - ry) * side, cx + (x + rx) * side, cy + (y + ry) * side)
        pen.ellipse(box, fill=person[part])
    for x in (-0.08, 0.08):
        pen.ellipse(
            (cx + (x - 0.03) * side, cy - 0.07 * side, cx + (x + 0.03) * side, cy - 0.02 * side), fill=(20, 20, 30)
        )
    pen.arc(
        (cx - 0.07 * side, cy + 0.02 * side, cx + 0.07 * side, cy + 0.13 * side),
        20,
        160,
        fill=(150, 40, 50),
        width=side // 90,
    )
    return picture
