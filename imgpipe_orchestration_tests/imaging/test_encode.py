from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from imgpipe_orchestration.imaging.encode import encode
from imgpipe_orchestration.imaging.recipe import MEDIA
from imgpipe_orchestration_tests.imaging.corpus import encoded, photo, picture


def test_a_jpeg_is_progressive_exactly_where_that_is_smaller() -> None:
    for side in (100, 480):
        image = photo("coffee").resize((side, side * 2 // 3))
        data = encode(image, "jpeg", 75, MEDIA)
        options = {"quality": 75, "subsampling": "4:2:0", "optimize": True}
        sizes = {flag: len(encoded(image, "JPEG", progressive=flag, **options)) for flag in (False, True)}
        assert len(data) == min(sizes.values())
        with Image.open(io.BytesIO(data)) as result:
            assert bool(result.info.get("progressive")) == (sizes[True] <= sizes[False])


def test_one_picture_saved_by_many_threads_at_once_gives_the_same_bytes_each_time() -> None:
    """Pillow keeps a save's options on the image: shared, 71 of 120 files came out wrong."""
    image = picture(160, 120)
    jobs = [(kind, quality) for kind in ("jpeg", "webp", "png") for quality in (40, 60, 80, 95)] * 6
    alone = {job: encode(image, *job, MEDIA) for job in set(jobs)}
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda job: encode(image, *job, MEDIA), jobs))
    assert all(data == alone[job] for job, data in zip(jobs, together, strict=True))
