"""How many encodings the search for a photograph's qualities takes. Where it ends is in test_quality."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from imgpipe_orchestration.imaging.encoding import search
from imgpipe_orchestration.imaging.recipe import MEDIA
from imgpipe_orchestration.imaging.render import render
from imgpipe_orchestration_tests.imaging.corpus import encoded, photo


def test_a_large_photograph_is_encoded_once_and_the_others_about_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    encodings: Counter[tuple[str, int]] = Counter()

    def counting(encode: Callable[..., bytes]) -> Callable[..., bytes]:
        def counted(image: Image.Image, kind: str, *rest: Any, **more: Any) -> bytes:
            encodings[kind, image.width * image.height] += 1
            return encode(image, kind, *rest, **more)

        return counted

    monkeypatch.setattr(search, "encode", counting(search.encode))
    original = photo("coffee").resize((2400, 1600), Image.Resampling.LANCZOS)
    made = render(encoded(original, "PNG", compress_level=1), MEDIA)
    for kind in ("avif", "webp", "jpeg"):
        assert encodings[kind, 2400 * 1600] == 1, kind
        assert sum(number for (each, _), number in encodings.items() if each == kind) <= 2.5 * len(MEDIA.sizes), kind
    zooms = [one for one in made.variants if one.size == "zoom"]
    assert zooms
    assert all(one.score is None for one in zooms), "nobody has scored them"
