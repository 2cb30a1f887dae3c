"""Logos cut out of their background, measured against the opacity they were drawn with."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from imgpipe_orchestration.imaging.background import NotUniform, remove_background
from imgpipe_orchestration.imaging.recipe import MEDIA
from imgpipe_orchestration.imaging.render import render
from imgpipe_orchestration_tests.imaging.corpus import encoded, photo

SIDE = 400


def _logo(background: str) -> tuple[Image.Image, np.ndarray, np.ndarray]:
    """A ring in two colours and a thin bar on a background; with its true opacity and colours."""
    large = Image.new("L", (SIDE * 4, SIDE * 4), 0)
    draw = ImageDraw.Draw(large)
    draw.ellipse([SIDE * 0.8, SIDE * 0.8, SIDE * 3.2, SIDE * 3.2], fill=255)
    draw.ellipse([SIDE * 1.4, SIDE * 1.4, SIDE * 2.6, SIDE * 2.6], fill=0)
    draw.rectangle([SIDE * 0.4, SIDE * 3.5, SIDE * 3.6, SIDE * 3.51 + 6], fill=255)
    alpha = np.asarray(large.resize((SIDE, SIDE), Image.Resampling.BOX)) / 255
    colours = np.zeros((SIDE, SIDE, 3))
    colours[:, : SIDE // 2], colours[:, SIDE // 2 :] = (200, 30, 40), (20, 60, 160)
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    plain = np.full((SIDE, SIDE, 3), 255.0)
    if background == "gradient":
        plain = np.stack([230 + 20 * x, 240 - 20 * y, 250 - 10 * x * y], axis=-1)
    mixed = alpha[..., None] * colours + (1 - alpha[..., None]) * plain
    return Image.fromarray(mixed.round().astype(np.uint8)), alpha, colours


@pytest.mark.parametrize("background", ["white", "gradient"])
def test_opacity_and_colour_of_a_logo_are_recovered(background: str) -> None:
    image, alpha, colours = _logo(background)
    cut = remove_background(image)
    result = np.asarray(cut.image).astype(float)
    edge = (alpha > 0) & (alpha < 1)
    assert np.abs(result[..., 3] - alpha * 255)[edge].mean() < 2
    assert np.abs(result[..., 3] - alpha * 255).mean() < 0.1
    assert np.abs(result[..., :3] - colours)[alpha > 0.5].mean() < 2
    assert cut.holes == 1


@pytest.mark.parametrize("colour", [(200, 30, 40), (20, 20, 20), (30, 90, 200)])
def test_jpeg_leaves_no_specks_around_a_logo(colour: tuple[int, int, int]) -> None:
    plain, alpha, _ = _logo("white")
    ink = Image.fromarray(np.round(alpha * 255).astype(np.uint8))
    image = Image.new("RGB", plain.size, "white")
    image.paste(colour, mask=ink)
    with Image.open(io.BytesIO(encoded(image, "JPEG", quality=60))) as compressed:
        cut = remove_background(compressed.convert("RGB"))
    opacity = np.asarray(cut.image)[..., 3]
    far = np.asarray(ink.filter(ImageFilter.MaxFilter(9))) == 0
    assert (opacity[far] == 0).all()
    assert cut.holes == 1


@pytest.mark.parametrize(("background", "quality"), [("white", 90), ("white", 75), ("gradient", 90)])
def test_nothing_of_a_white_ground_is_seen_on_black(background: str, quality: int) -> None:
    """JPEG spreads an edge over four pixels."""
    plain, alpha, colours = _logo(background)
    with Image.open(io.BytesIO(encoded(plain, "JPEG", quality=quality))) as compressed:
        cut = remove_background(compressed.convert("RGB")).image
    on_black = np.asarray(Image.alpha_composite(Image.new("RGBA", cut.size, "black"), cut).convert("RGB")).astype(float)
    brighter = (on_black - alpha[..., None] * colours).min(axis=2)
    assert (brighter > 60).sum() <= 3


@pytest.mark.parametrize("ground", [(244, 241, 234), (255, 244, 214)])
@pytest.mark.parametrize("quality", [90, 75])
def test_white_strokes_in_a_logo_on_cream_are_no_holes(ground: tuple[int, int, int], quality: int) -> None:
    image = Image.new("RGB", (400, 240), ground)
    draw = ImageDraw.Draw(image)
    draw.rectangle([30, 60, 370, 180], fill=(160, 20, 120))
    for left in range(50, 350, 37):
        draw.rectangle([left, 100, left + 8, 140], fill="white")
    with Image.open(io.BytesIO(encoded(image, "JPEG", quality=quality))) as compressed:
        opacity = np.asarray(remove_background(compressed.convert("RGB")).image)[..., 3]
    assert (opacity[64:176, 34:366] == 255).all()
    assert opacity[:50].max() == 0


def test_a_shadow_is_refused_because_every_cut_through_it_shows() -> None:
    image, alpha, _ = _logo("white")
    shadow = Image.fromarray(np.round(alpha * 160).astype(np.uint8)).filter(ImageFilter.GaussianBlur(8))
    ground = Image.new("RGB", image.size, "white")
    ground.paste((0, 0, 0), (8, 8), shadow)
    ground.paste(image, mask=Image.fromarray(np.round(alpha * 255).astype(np.uint8)))
    with pytest.raises(NotUniform, match="fades into its background"):
        remove_background(ground)


def test_paint_that_only_resembles_the_background_is_no_hole() -> None:
    image = Image.new("RGB", (200, 200), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle([40, 40, 160, 160], fill=(20, 20, 120))
    draw.rectangle([60, 60, 90, 140], fill=(249, 249, 247))
    draw.rectangle([110, 60, 140, 140], fill="white")
    cut = remove_background(image)
    opacity = np.asarray(cut.image)[..., 3]
    assert opacity[100, 75] == 255
    assert opacity[100, 125] == 0
    assert cut.holes == 1


@pytest.mark.parametrize("name", ["coffee", "astronaut", "grass"])
def test_a_photograph_is_refused(name: str) -> None:
    with pytest.raises(NotUniform, match="not uniform"):
        remove_background(photo(name))


def test_nothing_but_background_is_refused() -> None:
    with pytest.raises(NotUniform, match="nothing but background"):
        remove_background(Image.new("RGB", (100, 100), "white"))


def test_a_rendered_logo_comes_with_and_without_its_background_in_every_size() -> None:
    rendition = render(encoded(_logo("white")[0], "PNG"), MEDIA, is_logo=True)
    for size in MEDIA.sizes:
        kinds = {v.background: set() for v in rendition.variants}
        for v in rendition.variants:
            if v.size == size.name:
                kinds[v.background].add(v.format)
        assert "jpeg" in kinds["original"]
        assert "png" in kinds["removed"]
        assert "jpeg" not in kinds["removed"]
    assert any(note.startswith("background removed") for note in rendition.notes)


def test_a_refusal_is_a_note_and_no_variant() -> None:
    rendition = render(encoded(photo("coffee"), "PNG"), MEDIA, is_logo=True)
    assert {v.background for v in rendition.variants} == {"original"}
    assert any("background not removed: the background is not uniform" in note for note in rendition.notes)
