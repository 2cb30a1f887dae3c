"""The steps, judged by the pixels of the file they make."""

import io

import numpy as np
import pytest
from PIL import ExifTags, Image

from imgpipe_orchestration.errors import BadImage
from imgpipe_orchestration.listings import steps
from imgpipe_orchestration_tests.imaging.corpus import difference, encoded, picture, pixels


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1280, 960), (853, 640)),
        ((480, 1920), (160, 640)),
        ((853, 640), (853, 640)),
        ((64, 48), (64, 48)),
        ((1, 3000), (1, 640)),
        ((17000, 32), (16383, 31)),
    ],
)
def test_at_most_640_high_of_its_own_shape_and_never_enlarged(size: tuple[int, int], expected: tuple[int, int]) -> None:
    file = steps.make(encoded(picture(*size), "PNG", compress_level=1))
    with opened(file.data) as image:
        assert (image.format, image.size, file.frames) == ("WEBP", expected, 1)
    assert (file.width, file.height) == expected


def test_the_picture_is_the_one_that_was_sent() -> None:
    original = picture(1280, 960)
    file = steps.make(encoded(original, "JPEG", quality=95))
    assert difference(pixels(file.data), np.asarray(original.resize((853, 640), Image.Resampling.LANCZOS))) < 4


def test_a_picture_comes_out_upright() -> None:
    """In every orientation that EXIF has: `imaging/reading/test_formats.py`."""
    upright, exif = picture(400, 300), Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    file = steps.make(encoded(upright.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95, exif=exif.tobytes()))
    assert difference(pixels(file.data), np.asarray(upright)) < 4


def test_transparency_stays_and_an_alpha_that_hides_nothing_goes() -> None:
    clear = picture(200, 150).convert("RGBA")
    opaque = steps.make(encoded(clear, "PNG"))
    clear.putalpha(Image.linear_gradient("L").resize((200, 150)))
    file = steps.make(encoded(clear, "PNG"))
    with opened(opaque.data) as image:
        assert image.mode == "RGB"
    assert difference(pixels(file.data)[..., 3], np.asarray(clear)[..., 3]) < 1


def test_only_whose_picture_it_is_survives_of_the_metadata() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Copyright] = "Ada"
    exif[ExifTags.Base.Make] = "Camera"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    file = steps.make(encoded(picture(), "JPEG", exif=exif.tobytes()))
    with opened(file.data) as image:
        kept = image.getexif()
        assert dict(kept) == {ExifTags.Base.Copyright: "Ada"}
        assert not kept.get_ifd(ExifTags.IFD.GPSInfo)
        assert "icc_profile" not in image.info


def moving(count: int, kind: str, *, size: tuple[int, int] = (1000, 800), **options: object) -> bytes:
    """`count` frames of growing brightness."""
    frames = [Image.new("RGB", size, (40 + 8 * n % 200, 90, 60)) for n in range(count)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF"])
def test_an_animation_stays_one(kind: str) -> None:
    file = steps.make(moving(6, kind, duration=[100, 200, 300, 100, 100, 400], loop=0))
    assert (file.width, file.height, file.frames) == (800, 640, 6)
    with opened(file.data) as image:
        assert (image.format, image.n_frames, image.info["loop"]) == ("WEBP", 6, 0)
        durations = []
        for number in range(6):
            image.seek(number)
            image.load()
            durations.append(image.info["duration"])
            level = np.asarray(image.convert("RGB"))[..., 0].mean()
            assert level == pytest.approx(40 + 8 * number, abs=4)
    assert durations == [100, 200, 300, 100, 100, 400]


@pytest.mark.parametrize(
    ("kind", "claimed", "shown"),
    [
        *((kind, *pace) for kind in ("WEBP", "PNG") for pace in ((11, 11), (16, 16), (19, 19), (10, 100), (0, 100))),
        *(("GIF", *pace) for pace in ((10, 100), (20, 20), (50, 50))),
    ],
)
def test_frames_keep_their_pace_as_in_browsers(kind: str, claimed: int, shown: int) -> None:
    file = steps.make(moving(4, kind, size=(60, 40), duration=claimed, loop=0))
    with opened(file.data) as image:
        image.seek(3)
        image.load()
        assert image.info["duration"] == shown


def test_of_an_animation_past_the_limit_the_first_frames_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "MOST_FRAMES", 10)
    file = steps.make(moving(25, "GIF", size=(60, 40), duration=80, loop=2))
    assert file.frames == 10
    with opened(file.data) as image:
        assert image.info["loop"] == 3, "a GIF counts the repeats, a WebP the times it plays"
        image.seek(9)
        image.load()
        assert image.info["duration"] == 80
        assert np.asarray(image.convert("RGB"))[..., 0].mean() == pytest.approx(40 + 8 * 9, abs=4)


def test_a_broken_frame_is_a_bad_image() -> None:
    whole = moving(6, "GIF", duration=100)
    with pytest.raises(BadImage):
        steps.make(whole[: len(whole) * 2 // 3])
    third = whole.index(b",", whole.index(b"!\xf9", whole.index(b"!\xf9", whole.index(b"!\xf9") + 9) + 9)) + 9
    with pytest.raises(BadImage, match="a frame of the gif is damaged or cut short"):
        steps.make(whole[:third] + b"\xff" + whole[third + 1 :])


def test_a_step_is_one_function_and_its_place_in_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    def grey(images: steps.Picture) -> steps.Picture:
        return images.each(lambda image: image.convert("L"))

    monkeypatch.setattr(steps, "STEPS", (*steps.STEPS[:-1], grey, steps.encode))
    made = pixels(steps.make(encoded(picture(), "JPEG")).data)
    assert np.abs(made[..., 0] - made[..., 2]).max() <= 2
