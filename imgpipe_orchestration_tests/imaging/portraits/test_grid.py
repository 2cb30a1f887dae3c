"""Grids cut at their seams, judged by where the four pictures really lie."""

from contextlib import suppress

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from imgpipe_orchestration.devstack.photos import open_photo
from imgpipe_orchestration.errors import BadImage
from imgpipe_orchestration.imaging.portraits.grid import find_cells
from imgpipe_orchestration.imaging.portraits.judgement import judge
from imgpipe_orchestration_tests.imaging.corpus import picture
from imgpipe_orchestration_tests.imaging.grid_samples import right, sample


@pytest.mark.slow
def test_nearly_all_grids_with_shifted_seams_gutters_frames_and_noise_are_cut_right() -> None:
    samples = [sample(number, 768) for number in range(60)]
    good = 0
    for grid in samples:
        with suppress(BadImage):
            good += all(right(*pair) for pair in zip(grid.cells, find_cells(grid.image), strict=True))
    assert good >= 58


@pytest.mark.parametrize("number", range(12))
def test_one_picture_is_no_grid(number: int) -> None:
    grid = sample(number, 768)
    with pytest.raises(BadImage, match="not a 2x2 grid"):
        find_cells(grid.image.crop(grid.cells[number % 4]))


@pytest.mark.parametrize("number", range(8))
def test_half_a_grid_is_no_grid(number: int) -> None:
    grid = sample(number, 768)
    left, top, _, _ = grid.cells[0]
    _, _, end, bottom = grid.cells[1]
    with pytest.raises(BadImage, match="one row of two"):
        find_cells(grid.image.crop((left, top, end, bottom)))


@pytest.mark.parametrize("image", [picture(900, 900), open_photo("brick")], ids=["soft", "mortar"])
def test_a_photograph_is_no_grid(image: Image.Image) -> None:
    with pytest.raises(BadImage, match="not a 2x2 grid"):
        find_cells(image)


def test_a_flat_area_is_blank() -> None:
    with pytest.raises(BadImage, match="blank"):
        find_cells(Image.new("RGB", (512, 512), (90, 120, 90)))


def test_nine_pictures_are_not_four() -> None:
    nine = Image.new("RGB", (900, 900), "white")
    one = sample(1, 768)
    small = one.image.crop(one.cells[0]).resize((290, 290))
    for place in range(9):
        nine.paste(small, (place % 3 * 300 + 5, place // 3 * 300 + 5))
    with pytest.raises(BadImage, match="not a 2x2 grid"):
        find_cells(nine)


@pytest.mark.parametrize(("columns", "rows"), [(4, 4), (4, 2), (2, 4), (6, 6), (6, 2), (8, 8)])
def test_a_cell_that_holds_several_pictures_makes_no_grid_of_four(columns: int, rows: int) -> None:
    many = Image.new("RGB", (1024, 1024), "white")
    one = four(2)[0].resize((1024 // columns - 8, 1024 // rows - 8))
    for place in range(columns * rows):
        many.paste(one, (place % columns * (1024 // columns) + 4, place // columns * (1024 // rows) + 4))
    with pytest.raises(BadImage, match="more than four pictures"):
        find_cells(many)


@pytest.mark.parametrize("below", [True, False])
@pytest.mark.parametrize("words", ["Work", "Morning walk along the old harbour"])
@pytest.mark.parametrize("ink", ["white", "black"])
def test_captions_are_cut_off(ink: str, words: str, below: bool) -> None:
    grid = Image.new("RGB", (1024, 1024), ink)
    pen, font = ImageDraw.Draw(grid), ImageFont.load_default(size=26)
    cells = []
    for place, picture_ in enumerate(four(4)):
        x, y = 6 + place % 2 * 510, 6 + place // 2 * 510
        top = y if below else y + 50
        grid.paste(picture_.resize((502, 452)), (x, top))
        cells.append((x, top, x + 502, top + 452))
        pen.text((x + 251, y + (477 if below else 25)), words, fill="red", font=font, anchor="mm")
    assert all(right(*pair) for pair in zip(cells, find_cells(grid), strict=True))


@pytest.mark.parametrize("number", range(6))
def test_dark_pictures_without_a_gutter_are_cut_where_they_meet(number: int) -> None:
    """Night by candlelight: grounds that differ by a few grey levels are different grounds."""
    grid, (x, y) = Image.new("RGB", (1000, 1000)), (460, 550)
    cells = [(0, 0, x, y), (x, 0, 1000, y), (0, y, x, 1000), (x, y, 1000, 1000)]
    for cell, picture_ in zip(cells, four(number), strict=True):
        dark = picture_.point(lambda level: level // 8)
        grid.paste(dark.resize((cell[2] - cell[0], cell[3] - cell[1])), cell[:2])
    assert all(right(*pair) for pair in zip(cells, find_cells(grid), strict=True))


def test_rows_may_be_cut_at_different_places() -> None:
    image = Image.new("RGB", (800, 800))
    colours = [(200, 60, 60), (60, 160, 70), (70, 90, 200), (210, 190, 60)]
    boxes = [(0, 0, 380, 400), (380, 0, 800, 400), (0, 400, 430, 800), (430, 400, 800, 800)]
    for colour, box in zip(colours, boxes, strict=True):
        image.paste(colour, box)
    for colour, box in zip(colours, find_cells(image), strict=True):
        assert np.asarray(image.crop(box)).reshape(-1, 3).mean(axis=0) == pytest.approx(colour, abs=1)


def four(number: int) -> list[Image.Image]:
    grid = sample(number, 1024)
    return [grid.image.crop(box) for box in grid.cells]


def test_pictures_of_one_person_are_accepted() -> None:
    first = four(2)[0]
    turned = first.rotate(4, fillcolor=(128, 128, 128))
    judge([first, turned, first.transpose(Image.Transpose.FLIP_LEFT_RIGHT)], least_side=100)


def test_the_same_picture_twice_is_noticed() -> None:
    images = four(4)
    images[2] = images[0].filter(ImageFilter.GaussianBlur(0.5))
    with pytest.raises(BadImage, match="pictures 1 and 3 are the same"):
        judge(images, least_side=100)


def test_the_same_picture_four_times_is_noticed_where_cells_stand_off_their_seams_only() -> None:
    """Of a grid without a frame each cell is cut at other pixels, so a photograph is not its copy pixel by pixel."""
    photo = open_photo("astronaut").crop((60, 0, 412, 352)).resize((500, 500))
    grid = Image.new("RGB", (1012, 1012), "white")
    for place in ((0, 0), (512, 0), (0, 512), (512, 512)):
        grid.paste(photo, place)
    cells = find_cells(grid)
    with pytest.raises(BadImage, match="pictures 1 and 2 are the same"):
        judge([grid.crop(cell) for cell in cells], least_side=100)


def test_blank_blurred_and_small_pictures_are_refused_with_the_reason() -> None:
    image = four(4)[0]
    for unusable, reason in (
        (Image.new("RGB", (300, 300), "grey"), "^the picture is blank$"),
        (image.filter(ImageFilter.GaussianBlur(14)), "^the picture is blurred [^;]*$"),
        (image.resize((150, 150)), "too small"),
    ):
        with pytest.raises(BadImage, match=reason):
            judge([unusable], least_side=200)
