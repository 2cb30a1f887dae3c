"""BMPs in runs come out as Pillow's own decoder has them, and are refused where they are broken."""

from __future__ import annotations

import io
import struct
from random import Random

import numpy as np
import pytest
from PIL import BmpImagePlugin, Image

from imgpipe_orchestration.errors import BadImage
from imgpipe_orchestration.imaging.reading import rle_bmps
from imgpipe_orchestration.imaging.recipe import MEDIA
from imgpipe_orchestration.imaging.render import prepare

COLOURS = b"".join(bytes((i * 37 % 256, i * 91 % 256, i * 53 % 256, 0)) for i in range(256))
ROW = b"\x28\1\0\0"
"""40 pixels of the second colour."""
GREYS = b"".join(bytes((i, i, i, 0)) for i in range(256))


def _bmp(width: int, height: int, body: bytes, *, bits: int = 8, palette: bytes = COLOURS, used: int = 0) -> bytes:
    palette = palette[: 4 * (used or 1 << bits)]
    kind = 1 if bits == 8 else 2
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, kind, len(body), 0, 0, used, 0)
    start = 54 + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + header + palette + body


def _runs(numbers: np.ndarray, bits: int, dice: Random) -> bytes:
    """Palette numbers, top row first, in runs and in stretches that are written out, as chance has it."""
    out = []
    for row in numbers[::-1].tolist():
        at = 0
        while at < len(row):
            length = next((n for n in range(1, 255) if row[at + n : at + n + 1] != row[at : at + 1]), 255)
            if length < 3 and len(row) - at > 3 and dice.random() < 0.7:
                length = dice.randint(3, min(255, len(row) - at))
                out.append(bytes((0, length)) + _written_out(row[at : at + length], bits))
            else:
                out.append(bytes((length, row[at] if bits == 8 else row[at] * 17)))
            at += length
        out.append(b"\0\0")
    return b"".join(out[: dice.choice((-1, None))]) + b"\0\1"


def _written_out(numbers: list[int], bits: int) -> bytes:
    if bits == 4:
        numbers = [high << 4 | low for high, low in zip(numbers[::2], [*numbers[1::2], 0], strict=False)]
    return bytes(numbers) + b"\0" * (len(numbers) % 2)


def _decoded(data: bytes, monkeypatch: pytest.MonkeyPatch, decoder: object) -> Image.Image:
    monkeypatch.setitem(Image.DECODERS, "bmp_rle", decoder)
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("palette", [COLOURS, GREYS])
@pytest.mark.parametrize("used", [0, 2, 7])
@pytest.mark.parametrize("downwards", [False, True])
def test_pixels_are_those_of_pillow(
    bits: int, palette: bytes, used: int, downwards: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice, random = Random(bits + used), np.random.default_rng(bits + used)
    for _ in range(10):
        width, height = dice.randint(1, 300), dice.randint(1, 20)
        numbers = random.integers(0, used or 1 << bits, (height, width))
        numbers[:, : width // 2] = numbers[:, :1]
        body = _runs(numbers, bits, dice)
        data = _bmp(width, -height if downwards else height, body, bits=bits, palette=palette, used=used)
        slow = _decoded(data, monkeypatch, BmpImagePlugin.BmpRleDecoder)
        quick = _decoded(data, monkeypatch, rle_bmps.BmpRuns)
        assert quick.mode == slow.mode
        assert quick.tobytes() == slow.tobytes()
        assert quick.convert("RGB").tobytes() == slow.convert("RGB").tobytes()


@pytest.mark.parametrize("bits", [8, 4])
def test_rows_that_are_filled_up_to_four_bytes_end_where_the_picture_does(
    bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ImageMagick writes them."""
    numbers = np.random.default_rng(1).integers(0, 1 << bits, (20, 45))
    filled = np.pad(numbers, ((0, 0), (0, 3)))
    data = _bmp(45, 20, _runs(filled, bits, Random(1)), bits=bits)
    assert np.array_equal(np.asarray(_decoded(data, monkeypatch, rle_bmps.BmpRuns)), numbers)


def test_what_is_left_out_has_the_first_colour() -> None:
    first, other = (COLOURS[at : at + 3][::-1] for at in (0, 4))
    seen = prepare(_bmp(40, 40, ROW + b"\x14\1\0\0" * 38 + b"\0\0\0\1"), MEDIA).image
    rows = [seen.crop((0, row, 40, row + 1)).tobytes() for row in (39, 20, 0)]
    assert rows == [other * 40, other * 20 + first * 20, first * 40]


@pytest.mark.parametrize(("body", "lowest_first"), [
    ("0511 0000 0512 0001 0000", "11111 12121 00000 00000 00000"),
    ("0511 0000 0511 0000 0001", "11111 11111 00000 00000 00000"),
    ("0001", "00000 00000 00000 00000 00000"),
])  # fmt: skip
def test_so_has_what_a_picture_of_sixteen_colours_leaves_out(
    body: str, lowest_first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = _decoded(_bmp(5, 5, bytes.fromhex(body), bits=4), monkeypatch, rle_bmps.BmpRuns)
    assert ["".join(map(str, row)) for row in np.asarray(image)[::-1]] == lowest_first.split()


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(("body", "lowest_first"), [
    ("03# 00020202 02# 0000 02# 0001", "111000000 000000000 000001100 110000000"),
    ("00020103 02# 0001", "000000000 000000000 000000000 011000000"),
    ("02# 00020300 01# 00020002 02# 0001", "110001000 000000000 000000110 000000000"),
    ("04# 00020001 00020101 02# 0001", "111100000 000000000 000001100 000000000"),
    ("0005 ##### 00020101 02# 0001", "111110000 000000110 000000000 000000000"),
    ("01# 000200ff", "100000000 000000000 000000000 000000000"),
])  # fmt: skip
def test_jumps_lead_to_the_right_and_up(
    bits: int, body: str, lowest_first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_by_one = "11111000" if bits == 4 else "010101010100"
    runs = body.replace("#####", one_by_one).replace("#", "11" if bits == 4 else "01")
    image = _decoded(_bmp(9, 4, bytes.fromhex(runs), bits=bits), monkeypatch, rle_bmps.BmpRuns)
    assert ["".join(map(str, row)) for row in np.asarray(image)[::-1]] == lowest_first.split()


def test_jumps_in_a_wide_picture_lead_as_far_in_sixteen_colours_as_in_256(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random jumps, runs and pixels one by one, of as many pixels in either depth."""
    dice = Random(3)
    for _ in range(50):
        width, height = 700, 30
        runs: dict[int, list[bytes]] = {4: [], 8: []}
        column, row = 0, 0
        while row < height - 6:
            length = dice.randint(3, 40)
            right, up = dice.randint(0, 255), dice.randint(0, 5)
            is_over = column + length + right + 40 > width
            for bits, parts in runs.items():
                colour = 1 if bits == 8 else 0x11
                numbers = [1] * length
                parts.append(bytes((length, colour)) if right % 2 else bytes((0, length)) + _written_out(numbers, bits))
                parts.append(b"\0\0" if is_over else bytes((0, 2, right, up)))
            column, row = (0, row + 1) if is_over else (column + length + right, row + up)
        pictures = [
            np.asarray(
                _decoded(_bmp(width, height, b"".join(parts) + b"\0\1", bits=bits), monkeypatch, rle_bmps.BmpRuns)
            )
            for bits, parts in runs.items()
        ]
        assert np.array_equal(*pictures)
        assert pictures[0].any()


@pytest.mark.parametrize("body", [b"", ROW * 39, ROW * 39 + b"\0\x28abc", b"\xff\1\xff\1\0\0" * 40 + b"\0\1"])
def test_broken_runs_are_refused_in_plain_words(body: bytes) -> None:
    with pytest.raises(BadImage, match="the bmp data is broken: its run lengths are cut short or lead out"):
        prepare(_bmp(40, 40, body), MEDIA)
