"""TIFFs that Pillow has no mode for, or shows wrong: more than 8 bits a channel, Lab or CMYK with transparency.

libvips decodes them; OpenCV those of 10, 12 and 14 bits and uncompressed YCbCr. Both decode lazily, when the pixels
are asked for. What they could only guess at is refused.
"""

from __future__ import annotations

import io
import itertools
import math
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms, TiffImagePlugin, UnidentifiedImageError

from imgpipe_orchestration.imaging.colour.to_srgb import to_srgb, without_elements
from imgpipe_orchestration.imaging.libvips import libvips, out_of_libvips
from imgpipe_orchestration.imaging.limits import DEFAULT_LIMITS, check_pixels
from imgpipe_orchestration.imaging.opencv import cv2
from imgpipe_orchestration.imaging.reading.orientation import swaps_sides, upright

_Tag = ExifTags.Base
_COLOURS = {0: "L", 1: "L", 2: "RGB", 5: "CMYK", 6: "RGB", 8: "LAB"}
"""Mode by PhotometricInterpretation (TIFF 6.0). Nobody sends others."""
_YCBCR = 6
_CHANNELS = {"L": 1, "RGB": 3, "CMYK": 4, "LAB": 3}
_WHITE_IS_ZERO, _SEPARATE, _TRANSPARENCY = 0, 2, (1, 2)
_WHOLE, _SIGNED, _FLOAT = 1, 2, 3
_BETWEEN = frozenset({10, 12, 14})
"""Bits of a channel that libvips does not read."""
_WEBP = 50_001
"""A compression that neither libtiff here knows, though Pillow's reader begins such a file."""
_COMPRESSIONS = (1, 5, 8, 32773, 32946)
"""None, LZW, deflate, PackBits and deflate under its old number: all that libvips' libtiff supports."""
_INTENT = {"intent": "relative", "black_point_compensation": True}
"""As in `to_srgb`."""


def is_shown_wrong(image: TiffImagePlugin.TiffImageFile) -> bool:
    """Whether Pillow opens a TIFF and would misread its pixels. Known cases:

    - planar: 16 bits are taken for two pixels of 8; signed Lab for unsigned; grey or a palette loses its transparency
      channel and becomes invisible
    - white is zero: black and white are swapped where it has more than 8 bits or says it is planar
    - 10 to 14 bits are taken for 16, which is nearly black
    - big-endian floats are byte-swapped twice, by libtiff and by Pillow
    - uncompressed subsampled YCbCr seems to have too few bytes
    - tiles whose offsets are called those of strips are taken for strips
    - WebP as compression is only found out when the pixels are decoded
    """
    tags = image.tag_v2
    bits = max(tags.get(_Tag.BitsPerSample, (1,)))
    if (
        tags.get(_Tag.Compression) == _WEBP
        or _is_uncompressed_ycbcr(tags)
        or (_Tag.TileWidth in tags and _Tag.TileOffsets not in tags)
    ):
        return True
    if _white_is_zero(tags) and tags.get(_Tag.PlanarConfiguration) == _SEPARATE and tags.get(_Tag.Compression, 1) == 1:
        return True
    if bits <= 8:
        return _is_planar(tags) and image.mode in ("LA", "La", "PA", "LAB")
    return _is_planar(tags) or _white_is_zero(tags) or bits % 8 > 0 or (image.mode == "F" and tags.prefix == b"MM")


class DeepTiff(TiffImagePlugin.TiffImageFile):
    """Like one of Pillow's: with its tags and its profile, its pixels upright, the modes L, LA, RGB, RGBA and CMYK.

    Raises:
        UnidentifiedImageError: of a kind that is not read here either, or broken.
        TooLarge: tiles past the limit.
    """

    def _open(self) -> None:
        self._data = self.fp.read() if self.fp else b""
        tags = self.tag_v2 = _tags(self._data)
        self._colours = _COLOURS.get(tags.get(_Tag.PhotometricInterpretation, _WHITE_IS_ZERO), "")
        self._bands = tags.get(_Tag.SamplesPerPixel, 1)
        if not self._colours or not self._is_read():
            raise UnidentifiedImageError
        if _Tag.TileWidth in tags:
            check_pixels(tags[_Tag.TileWidth], tags.get(_Tag.TileLength, 0), "tiff", DEFAULT_LIMITS)
        # libvips takes an extra channel without a meaning for transparency as well.
        is_transparency = tags.get(_Tag.ExtraSamples, _TRANSPARENCY)[0] in _TRANSPARENCY
        self._has_alpha = self._bands > _CHANNELS[self._colours] and is_transparency
        self._stored = tags[_Tag.ImageWidth], tags[_Tag.ImageLength]
        turn = tags.get(_Tag.Orientation, 1)
        self._turn = turn if turn in range(1, 9) else 1
        self._size = self._stored[::-1] if swaps_sides(self._turn) else self._stored
        self._mode = "RGB" if self._colours == "LAB" else self._colours
        if self._has_alpha:
            self._mode = "LA" if self._colours == "L" else "RGBA"
        profile = tags.get(_Tag.InterColorProfile)
        if isinstance(profile, bytes) and self._colours != "LAB":
            self.info["icc_profile"] = profile

    def _is_read(self) -> bool:
        tags, kinds = self.tag_v2, self._kinds
        extra = self._bands - _CHANNELS[self._colours]
        if len(kinds) != 1 or extra < 0 or tags.get(_Tag.Compression, 1) not in _COMPRESSIONS:
            return False
        if _is_planar(tags) and (self._colours == "L" or _Tag.TileWidth in tags):
            return False
        if self._is_for_opencv:
            is_tiled_or_in_planes = _Tag.TileWidth in tags or _is_planar(tags)
            return self._colours in ("L", "RGB") and extra == 0 and not is_tiled_or_in_planes
        if tags.get(_Tag.PhotometricInterpretation) == _YCBCR:
            return False
        if self._colours == "LAB":
            return kinds <= {(16, _WHOLE), (16, _SIGNED)} or (extra > 0 and kinds <= {(8, _WHOLE)})
        return kinds <= {(8, _WHOLE), (16, _WHOLE), (32, _WHOLE), (16, _FLOAT), (32, _FLOAT)}

    def load(self) -> Any:
        """Decode.

        Raises:
            OSError, pyvips.Error: broken or cut short.
        """
        if self._im is None:
            self.im = (self._unpacked() if self._is_for_opencv else upright(self._decoded(), self._turn)).im
        return Image.Image.load(self)

    @property
    def _kinds(self) -> set[tuple[int, int]]:
        """Bits and sample format of the channels."""
        bits, kinds = self.tag_v2.get(_Tag.BitsPerSample, (1,)), self.tag_v2.get(_Tag.SampleFormat, (_WHOLE,))
        return {*zip(bits, itertools.cycle(kinds))}

    @property
    def _is_for_opencv(self) -> bool:
        return self._kinds <= {(bits, _WHOLE) for bits in _BETWEEN} or _is_uncompressed_ycbcr(self.tag_v2)

    def _unpacked(self) -> Image.Image:
        """The pixels by OpenCV, which turns them upright and returns 10 to 14 bits as the upper bits of 16."""
        levels = cv2.imdecode(np.frombuffer(self._data, np.uint8), cv2.IMREAD_UNCHANGED)
        if levels is None or levels.shape[1::-1] != self._size or levels.ndim != (2 if self._bands == 1 else 3):
            raise OSError("its pixels cannot be decoded")
        if levels.dtype == np.uint16:
            bits = self.tag_v2[_Tag.BitsPerSample][0]
            levels = cv2.convertScaleAbs(levels, alpha=255 / (0x10000 - (1 << 16 - bits)))
        if self._bands > 1:
            return Image.fromarray(np.asarray(cv2.cvtColor(levels, cv2.COLOR_BGR2RGB)))
        return Image.fromarray(np.asarray(cv2.bitwise_not(levels) if _white_is_zero(self.tag_v2) else levels))

    def _picture(self) -> Any:
        """The stored pixels; they can be read only once.

        A tile that cannot be decoded would be black unless libvips fails on warnings. Strips do not need that, and
        would fail on unknown tags.
        """
        fail_on = "warning" if _Tag.TileWidth in self.tag_v2 else "error"
        return libvips().Image.tiffload_buffer(self._data, access="sequential", fail_on=fail_on)

    def _decoded(self) -> Image.Image:
        picture = self._picture()
        if (picture.width, picture.height, picture.bands) != (*self._stored, self._bands):
            raise OSError("its tags contradict each other")
        colours = self._shown(self._without_alpha(picture))
        if not self._has_alpha:
            return out_of_libvips(colours, self._mode, threads=1)
        both = colours.bandjoin(_alpha(picture[_CHANNELS[self._colours]]))
        if self._colours != "CMYK":
            return out_of_libvips(both, self._mode, threads=1)
        pixels = np.frombuffer(both.write_to_memory(), np.uint8).reshape(both.height, both.width, 5)
        inks = Image.frombytes("CMYK", (both.width, both.height), pixels[..., :4].tobytes())
        inks.info = {"icc_profile": self.info.pop("icc_profile", None)}
        result, _ = to_srgb(inks)
        result.putalpha(Image.fromarray(pixels[..., 4].copy()))
        return result

    def _without_alpha(self, picture: Any) -> Any:
        channels = _CHANNELS[self._colours]
        return picture if picture.bands == channels else picture[0] if channels == 1 else picture[:channels]

    def _shown(self, picture: Any) -> Any:
        """The colours in 8 bits."""
        if self._colours == "LAB":
            # Photoshop and Pillow use D50 as the white point; libvips' own conversion uses D65.
            return picture.colourspace("lab").icc_export(output_profile="srgb", depth=8, **_INTENT)
        profile = self.info.get("icc_profile", b"")
        if picture.format != "float" or self._colours != "RGB" or not 0 < len(profile) <= DEFAULT_LIMITS.max_icc_bytes:
            return self._levels(picture, "uchar")
        # Photo editors save linear light as floats. In 8 bits it would have few dark levels, so convert from 16.
        deep = self._levels(picture, "ushort").copy(interpretation="rgb16")
        deep.set_type(libvips().GValue.blob_type, "icc-profile-data", without_elements(profile))
        try:
            ImageCms.ImageCmsProfile(io.BytesIO(profile))  # raises for a broken one, which libvips silently ignores
            shown = deep.icc_transform("srgb", embedded=True, depth=8, **_INTENT)
        except (OSError, libvips().Error):
            return self._levels(picture, "uchar")
        del self.info["icc_profile"]
        return shown

    def _levels(self, picture: Any, kind: str) -> Any:
        """The picture in 8 or 16 bits. Integers are 0 to 65,535, floats 0 to 1; stretched when they go beyond."""
        if picture.format in ("uchar", "ushort"):
            return (picture >> 8).cast(kind) if picture.format == "ushort" else picture
        figures = _numbers(self._without_alpha(self._picture())).stats()
        low, high = figures(0, 0)[0], figures(1, 0)[0]
        white = 1 if picture.format == "float" else 65_535
        if low >= 0 and high <= white:
            low, high = 0, white
        most = 255 if kind == "uchar" else 65_535
        levels = ((_numbers(picture) - low) * (most / max(high - low, 1e-12))).rint()
        if _white_is_zero(self.tag_v2):
            levels = most - levels  # libvips inverts 8 and 16 bits itself
        return levels.cast(kind)


def _tags(data: bytes) -> TiffImagePlugin.ImageFileDirectory_v2:
    """The first directory. The header is rebuilt because Pillow does not recognise that of a big-endian BigTIFF."""
    header = b"II+\0" + data[4:16] if data[2:4] in (b"+\0", b"\0+") else b"II*\0" + data[4:8]
    tags = TiffImagePlugin.ImageFileDirectory_v2(header, prefix=data[:2])
    file = io.BytesIO(data)
    file.seek(tags.next)
    tags.load(file)
    return tags


def _white_is_zero(tags: TiffImagePlugin.ImageFileDirectory_v2) -> bool:
    return bool(tags.get(_Tag.PhotometricInterpretation, _WHITE_IS_ZERO) == _WHITE_IS_ZERO)


def _is_uncompressed_ycbcr(tags: TiffImagePlugin.ImageFileDirectory_v2) -> bool:
    """Whether it is subsampled YCbCr without compression: Pillow passes only compressed YCbCr to libtiff."""
    is_bare = tags.get(_Tag.PhotometricInterpretation) == _YCBCR and tags.get(_Tag.Compression, 1) == 1
    return is_bare and tags.get(_Tag.BitsPerSample) == (8, 8, 8) and tags.get(_Tag.YCbCrSubSampling, (2, 2)) != (1, 1)


def _is_planar(tags: TiffImagePlugin.ImageFileDirectory_v2) -> bool:
    return tags.get(_Tag.PlanarConfiguration) == _SEPARATE and tags.get(_Tag.SamplesPerPixel, 1) > 1


def _numbers(picture: Any) -> Any:
    """The picture with 0 for NaN and infinity: stretched to the infinite, all else would be black."""
    return (picture.abs() < math.inf).ifthenelse(picture, 0) if picture.format == "float" else picture


def _alpha(channel: Any) -> Any:
    """Transparency in 8 bits."""
    if channel.format == "float":
        return (channel * 255).rint().cast("uchar")
    if channel.format == "short":  # signed because the Lab colours beside it are
        channel = channel.copy(format="ushort")
    return (channel >> {"uchar": 0, "ushort": 8, "uint": 24}[channel.format]).cast("uchar")
