from __future__ import annotations

import io

import numpy as np
from PIL import Image

from imgpipe_orchestration.imaging.crop import crop_box
from imgpipe_orchestration.imaging.focus import FocusHints, find_focus
from imgpipe_orchestration.imaging.geometry import Box
from imgpipe_orchestration.imaging.recipe import MEDIA, Recipe
from imgpipe_orchestration.imaging.render import render
from imgpipe_orchestration_tests.imaging.corpus import encoded, photo

FACE = Box(0.33, 0.1, 0.55, 0.35)
"""Where the astronaut's face is."""


def test_a_face_is_found_without_any_analysis() -> None:
    focal = find_focus(photo("astronaut"))
    assert focal.reason == "local faces"
    x, y = focal.core.centre
    assert FACE.left < x < FACE.right
    assert FACE.top < y < FACE.bottom


def test_a_wide_crop_keeps_the_face() -> None:
    image = photo("astronaut")
    focal = find_focus(image)
    left, top, right, bottom = crop_box(*image.size, 1600, 534, focal.box, core=focal.core)
    assert top <= focal.core.top * image.height
    assert bottom >= focal.core.bottom * image.height
    assert (left, right) == (0, image.width)


def test_what_stands_out_is_kept_where_there_is_no_face() -> None:
    image = Image.new("RGB", (900, 300), (120, 130, 125))
    image.paste((230, 60, 30), (700, 100, 780, 180))
    focal = find_focus(image)
    assert focal.reason == "saliency"
    left, _, right, _ = crop_box(900, 300, 300, 300, focal.box, core=focal.core)
    assert left <= 700
    assert right >= 780


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


def test_a_face_in_the_background_does_not_move_the_crop() -> None:
    large, small = Box(0.1, 0.1, 0.3, 0.4), Box(0.9, 0.1, 0.93, 0.15)
    assert find_focus(photo("coffee"), FocusHints(faces=(small, large))).box == large


def test_a_focal_box_set_by_hand_moves_the_pixels_of_the_crop() -> None:
    image = Image.fromarray(np.repeat(np.linspace(0, 255, 900).astype(np.uint8)[None], 300, axis=0))
    recipe = Recipe(sizes=MEDIA.sizes[:1], adaptive=False)
    means = []
    for left in (0.0, 0.8):
        hints = FocusHints(manual=Box(left, 0.4, left + 0.2, 0.6))
        rendition = render(encoded(image, "PNG"), recipe, hints)
        assert rendition.focus.reason == "manual"
        with Image.open(io.BytesIO(rendition.variants[-1].data)) as crop:
            means.append(float(np.asarray(crop.convert("L")).mean()))
    assert means[0] < 60
    assert means[1] > 195
