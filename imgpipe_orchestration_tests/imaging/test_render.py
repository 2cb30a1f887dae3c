"""A whole rendition: its sizes, formats and notes."""

import hashlib

from imgpipe_orchestration.imaging.recipe import MEDIA
from imgpipe_orchestration.imaging.render import render
from imgpipe_orchestration_tests.imaging.corpus import encoded, picture, pixels


def test_every_size_comes_in_every_format_and_decodes_to_what_it_says() -> None:
    rendition = render(encoded(picture(900, 640), "JPEG", quality=92), MEDIA)
    made = {(v.size, v.format) for v in rendition.variants}
    dropped = {tuple(note.split(" dropped")[0].split(": ")) for note in rendition.notes if "dropped" in note}
    assert made | dropped == {(size.name, kind) for size in MEDIA.sizes for kind in ("avif", "webp", "jpeg")}
    for variant in rendition.variants:
        assert pixels(variant.data).shape == (variant.height, variant.width, 3)
        assert variant.sha256 == hashlib.sha256(variant.data).hexdigest()


def test_nothing_is_enlarged_and_the_manifest_says_so() -> None:
    rendition = render(encoded(picture(200, 160), "PNG"), MEDIA)
    sizes = {v.size: (v.width, v.height) for v in rendition.variants}
    assert sizes == {
        "thumbnail": (160, 160),
        "small": (200, 160),
        "grid": (160, 160),
        "detail": (200, 160),
        "header": (200, 67),
        "zoom": (200, 160),
    }
    assert len([note for note in rendition.notes if "as nothing is enlarged" in note]) == 6


def test_the_same_input_and_recipe_give_the_same_bytes() -> None:
    data = encoded(picture(700, 500), "PNG")
    assert render(data, MEDIA) == render(data, MEDIA) == render(data, MEDIA, threads=3)
