"""Where the subject is found, and that crops keep it."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from imgpipe_orchestration.imaging.geometry import Box
from imgpipe_orchestration.imaging.plan import crop_box
from imgpipe_orchestration.imaging.render import render
from imgpipe_orchestration.imaging.subject.faces import find_faces
from imgpipe_orchestration.imaging.subject.focus import FocusHints, find_focus
from imgpipe_orchestration_tests.imaging.corpus import SMALL, encoded, photo

FACE = Box(0.33, 0.1, 0.55, 0.35)
"""Where the astronaut's face is."""


def test_a_face_is_found_without_any_analysis_and_a_wide_crop_keeps_it() -> None:
    image = photo("astronaut")
    focal = find_focus(image)
    assert focal.reason == "local faces"
    core = focal.core
    x, y = (core.left + core.right) / 2, (core.top + core.bottom) / 2
    assert FACE.left < x < FACE.right
    assert FACE.top < y < FACE.bottom
    left, top, right, bottom = crop_box(*image.size, 1600, 534, focal.box, core=focal.core)
    assert top <= focal.core.top * image.height
    assert bottom >= focal.core.bottom * image.height
    assert (left, right) == (0, image.width)


def test_what_stands_before_a_plain_background_is_kept_and_its_head_above_all() -> None:
    image = Image.new("RGB", (800, 600), (246, 245, 243))
    image.paste((40, 30, 25), (420, 120, 700, 580))
    image.paste((200, 150, 120), (650, 60, 760, 140))
    focal = find_focus(image)
    assert focal.reason == "plain ground"
    left, _, right, _ = crop_box(800, 600, 300, 300, focal.box, core=focal.core)
    assert left <= 420
    assert right >= 760
    _, top, _, _ = crop_box(800, 600, 1600, 534, focal.box, core=focal.core)
    assert top <= 66


@pytest.mark.parametrize("angle", [-10, 8])
def test_a_face_that_is_tilted_or_dark_is_found_all_the_same(angle: int) -> None:
    dark = photo("astronaut").rotate(angle, Image.Resampling.BICUBIC).point(lambda value: value * 0.4)
    assert len(find_faces(dark)) == 1


def test_a_plain_picture_is_cropped_at_its_centre() -> None:
    assert find_focus(Image.new("RGB", (400, 200), "white")).reason == "centre"


def test_the_surest_evidence_wins() -> None:
    image = photo("astronaut")
    box = Box(0.7, 0.7, 0.9, 0.9)
    hints = {
        "manual": FocusHints(manual=box, faces=(FACE,), text=(FACE,)),
        "faces": FocusHints(faces=(box,), logos=(FACE,), crop_hints=(FACE,)),
        "logo": FocusHints(logos=(box,), text=(FACE,)),
        "text": FocusHints(text=(box,), crop_hints=(FACE,)),
        "crop hint": FocusHints(crop_hints=(box,)),
    }
    for reason, hint in hints.items():
        focal = find_focus(image, hint)
        assert (focal.reason, focal.box) == (reason, box)


def test_a_flat_crop_of_a_tall_object_shows_its_upper_rim() -> None:
    cup, spoon = Box(0.29, 0.04, 0.68, 0.71), Box(0.66, 0.17, 0.7, 0.3)
    focal = find_focus(photo("coffee"), FocusHints(objects=(cup, spoon), crop_hints=(FACE,)))
    assert (focal.reason, focal.box) == ("objects", cup)
    assert crop_box(960, 640, 1600, 534, focal.box, core=focal.core)[1] < 0.04 * 640


def test_a_face_goes_before_an_object() -> None:
    assert find_focus(photo("astronaut"), FocusHints(objects=(Box(0.7, 0.7, 0.9, 0.9),))).reason == "local faces"


def test_a_face_in_the_background_does_not_move_the_crop() -> None:
    large, small = Box(0.1, 0.1, 0.3, 0.4), Box(0.9, 0.1, 0.93, 0.15)
    assert find_focus(photo("coffee"), FocusHints(faces=(small, large))).box == large


def test_a_focal_box_set_by_hand_moves_the_pixels_of_the_crop() -> None:
    image = Image.fromarray(np.repeat(np.linspace(0, 255, 900).astype(np.uint8)[None], 300, axis=0))
    means = []
    for left in (0.0, 0.8):
        hints = FocusHints(manual=Box(left, 0.4, left + 0.2, 0.6))
        rendition = render(encoded(image, "PNG"), SMALL, hints)
        assert rendition.focus.reason == "manual"
        with Image.open(io.BytesIO(rendition.variants[-1].data)) as crop:
            means.append(float(np.asarray(crop.convert("L")).mean()))
    assert means[0] < 60
    assert means[1] > 195


@pytest.mark.parametrize("hidden", [(0, 0, 0, 0), (255, 255, 255, 0)])
@pytest.mark.parametrize("colour", [(0, 0, 0, 255), (255, 255, 255, 255), (128, 128, 128, 255)])
def test_a_logo_on_transparency_is_found_whatever_colour_its_invisible_pixels_have(
    hidden: tuple[int, ...], colour: tuple[int, ...]
) -> None:
    """A crop of the middle would be empty."""
    image = Image.new("RGBA", (1600, 500), hidden)
    ImageDraw.Draw(image).ellipse((60, 100, 360, 400), fill=colour)
    found = find_focus(image)
    assert found.reason == "plain ground"
    assert found.box.left < 0.05 and found.box.right < 0.25
