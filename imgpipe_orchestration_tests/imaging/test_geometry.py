"""The arithmetic of sizes and crops, for every shape there is."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from imgpipe_orchestration.imaging.geometry import WHOLE, Box, fit_within
from imgpipe_orchestration.imaging.plan import crop_box, output_size, working_size
from imgpipe_orchestration.imaging.recipe import MEDIA, Size

SIDE = st.integers(1, 30_000)
TARGET = st.integers(1, 2400)
FRACTION = st.floats(0, 1)
BOX = st.tuples(FRACTION, FRACTION, FRACTION, FRACTION).map(
    lambda f: Box(min(f[0], f[2]), min(f[1], f[3]), max(f[0], f[2]), max(f[1], f[3]))
)


@given(SIDE, SIDE, TARGET, TARGET)
@example(4000, 3, 480, 480)
@example(3, 4000, 480, 480)
@example(1, 1, 300, 300)
def test_a_fit_stays_inside_keeps_its_shape_and_is_never_enlarged(w: int, h: int, to_w: int, to_h: int) -> None:
    width, height = fit_within(w, h, to_w, to_h)
    assert 1 <= width <= min(w, to_w)
    assert 1 <= height <= min(h, to_h)
    scale = min(1, to_w / w, to_h / h)
    assert abs(width - max(1, w * scale)) <= 0.5 + 1e-6
    assert abs(height - max(1, h * scale)) <= 0.5 + 1e-6


@given(SIDE, SIDE, TARGET, TARGET)
@example(4000, 3, 500, 500)
@example(3, 4000, 1600, 534)
def test_a_crop_is_exact_where_the_image_is_large_enough_and_else_the_largest_of_its_shape(
    w: int, h: int, to_w: int, to_h: int
) -> None:
    width, height = output_size(w, h, Size("any", to_w, to_h, "crop"))
    assert 1 <= width <= min(w, to_w)
    assert 1 <= height <= min(h, to_h)
    if w >= to_w and h >= to_h:
        assert (width, height) == (to_w, to_h)
    else:
        assert width == w or height == h


@given(SIDE, SIDE, TARGET, TARGET, BOX, BOX)
def test_a_crop_box_is_inside_the_image_and_as_large_as_it_can_be(
    w: int, h: int, to_w: int, to_h: int, subject: Box, core: Box
) -> None:
    left, top, right, bottom = crop_box(w, h, to_w, to_h, subject, core=core)
    assert 0 <= left < right <= w
    assert 0 <= top < bottom <= h
    assert right - left == w or bottom - top == h


@given(SIDE, SIDE, TARGET, TARGET, BOX)
def test_a_crop_holds_the_core_wherever_it_is_large_enough_for_it(
    w: int, h: int, to_w: int, to_h: int, core: Box
) -> None:
    left, top, right, bottom = crop_box(w, h, to_w, to_h, WHOLE, core=core)
    if (core.right - core.left) * w <= right - left:
        assert left <= core.left * w + 0.5 + 1e-6
        assert right >= core.right * w - 0.5 - 1e-6
    if (core.bottom - core.top) * h <= bottom - top:
        assert top <= core.top * h + 0.5 + 1e-6
        assert bottom >= core.bottom * h - 0.5 - 1e-6


@given(SIDE, SIDE, TARGET, TARGET, BOX)
@example(3, 4000, 1600, 534, WHOLE)
def test_a_crop_that_may_reach_beyond_the_image_holds_the_core_and_enlarges_nothing(
    w: int, h: int, to_w: int, to_h: int, core: Box
) -> None:
    left, top, right, bottom = crop_box(w, h, to_w, to_h, WHOLE, core=core, beyond=True)
    assert left <= core.left * w + 0.5 + 1e-6 and right >= core.right * w - 0.5 - 1e-6
    assert top <= core.top * h + 0.5 + 1e-6 and bottom >= core.bottom * h - 0.5 - 1e-6
    width, height = output_size(w, h, Size("any", to_w, to_h, "crop"), core)
    assert 1 <= width <= right - left and 1 <= height <= bottom - top
    inside = crop_box(w, h, to_w, to_h, WHOLE, core=core)
    if (right - left, bottom - top) == (inside[2] - inside[0], inside[3] - inside[1]):
        assert (left, top, right, bottom) == inside
    assert max(0, left) < min(w, right) and max(0, top) < min(h, bottom), "it shows some of the image"


@settings(max_examples=300)
@given(SIDE, SIDE, BOX)
@example(4000, 3, WHOLE)
@example(3, 4000, WHOLE)
@example(1, 1, WHOLE)
@example(2160, 3840, WHOLE)
def test_the_working_picture_holds_every_size_in_full(w: int, h: int, subject: Box) -> None:
    width, height = working_size(w, h, MEDIA)
    assert width <= w
    assert height <= h
    for size in MEDIA.sizes:
        made = output_size(width, height, size)
        asked = output_size(w, h, size)
        assert abs(made[0] - asked[0]) <= 1
        assert abs(made[1] - asked[1]) <= 1
        if size.fit == "crop":
            left, top, right, bottom = crop_box(width, height, *made, subject, core=subject)
            assert 0 <= left < right <= width
            assert 0 <= top < bottom <= height
            assert right - left >= made[0]
            assert bottom - top >= made[1]
        if size.fit == "crop" and w >= size.width and h >= size.height:
            assert made == (size.width, size.height)
