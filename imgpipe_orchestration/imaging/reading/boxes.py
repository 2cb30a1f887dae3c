"""AVIF's container: stated size and bytes of each AV1 item, and properties of the primary item, which is the one shown.

Boxes are those of ISO/IEC 14496-12 (files and tracks) and ISO/IEC 23008-12 (items). What is cut short reads as zeros:
reporting a broken file is left to the decoder.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

from imgpipe_orchestration.errors import TooLarge
from imgpipe_orchestration.imaging.geometry import PixelBox

Size = tuple[int, int]
_AV1, _EXIF = b"av01", b"Exif"
_NCLX = int.from_bytes(b"nclx")
_IN_IDAT = 1
"""Construction method of an item whose bytes lie in the box `idat`, not in the file at large."""


@dataclass(slots=True)
class _Span:
    """A stretch of the file, read from front to back in big-endian numbers."""

    data: memoryview
    at: int
    end: int

    def take(self, count: int) -> int:
        """The number in the next `count` bytes."""
        start, self.at = self.at, self.at + count
        return int.from_bytes(self.data[start : min(self.at, self.end)])


class Boxes:
    """The boxes of an AVIF.

    Args:
        most: boxes and entries of tables to read before the file is refused.
    """

    def __init__(self, data: bytes, most: int) -> None:
        self._file = _Span(memoryview(data), 0, len(data))
        self._most = self._left = most

    def av1_pictures(self) -> Iterator[tuple[Size, memoryview]]:
        """Stated width and height, pixels, and AV1 stream of every item and of every track's first frame.

        Tiles of a grid and transparency are items of their own.

        Raises:
            TooLarge: more boxes and entries than allowed.
        """
        yield from self._items(self._meta())
        if moov := self._top.get(b"moov"):
            for kind, track in self._boxes(moov):
                if kind == b"trak" and (found := self._first_frame(track)):
                    yield found

    def exif_types(self) -> Iterator[int]:
        """The offset of the type of each item that is EXIF.

        Raises:
            TooLarge: more boxes than allowed.
        """
        if iinf := self._meta().get(b"iinf"):
            yield from (at for _, at in self._item_types(iinf) if iinf.data[at : at + 4] == _EXIF)

    def associations(self) -> Iterator[int]:
        """The offset, at version and flags, of each `ipma` box: the tables that say which properties an item has.

        Raises:
            TooLarge: more boxes than allowed.
        """
        if iprp := self._meta().get(b"iprp"):
            tables = (table for kind, table in self._boxes(iprp) if kind == b"ipma")
            yield from (table.at for table in tables if table.at + 4 <= table.end)

    def matrices(self) -> Iterator[int]:
        """The offset of the code point for matrix coefficients (H.273) in each `nclx` box.

        Raises:
            TooLarge: more boxes than allowed.
        """
        if iprp := self._meta().get(b"iprp"):
            for kind, content in self._contents(iprp):
                if kind == b"colr" and content.take(4) == _NCLX and content.at + 6 <= content.end:
                    yield content.at + 4

    def cicp(self) -> tuple[int, int] | None:
        """The primary item's code points for primaries and transfer curve (H.273); None where it has none.

        Gain maps and other items have code points of their own.

        Raises:
            TooLarge: more boxes and entries than allowed.
        """
        for colours in self._of_primary(b"colr"):
            if colours.take(4) == _NCLX:
                return colours.take(2), colours.take(2)
        return None

    def clean_aperture(self, width: int, height: int) -> PixelBox | None:
        """The part of the primary item's `width` x `height` pixels that is to be shown (ISO/IEC 14496-12, 12.1.4).

        None where that is all of it, or where the box is invalid: no whole pixels, or beyond an edge. libheif writes
        it where it padded a picture for an encoder that takes even sides only.

        Raises:
            TooLarge: more boxes and entries than allowed.
        """
        for clap in self._of_primary(b"clap"):
            numbers = [clap.take(4) for _ in range(8)]
            if not all(numbers[1::2]):
                return None
            # Signed numerators over denominators; the offsets are from centre to centre.
            across, down, right, below = (
                Fraction((above ^ 1 << 31) - (1 << 31), under)
                for above, under in zip(numbers[::2], numbers[1::2], strict=True)
            )
            left, top = (width - across) / 2 + right, (height - down) / 2 + below
            box = left, top, left + across, top + down
            inside = 0 <= left < box[2] <= width and 0 <= top < box[3] <= height
            if not inside or any(side.denominator > 1 for side in box):
                return None
            return int(box[0]), int(box[1]), int(box[2]), int(box[3])
        return None

    def _of_primary(self, wanted: bytes) -> Iterator[_Span]:
        """The content of each property of a type that the primary item has."""
        meta = self._meta()
        if {b"pitm", b"iprp"} <= meta.keys():
            pitm = meta[b"pitm"]
            primary = pitm.take(4 if pitm.take(4) >> 24 else 2)
            for item, kind, content in self._properties(meta[b"iprp"]):
                if (item, kind) == (primary, wanted):
                    yield content

    @cached_property
    def _top(self) -> dict[bytes, _Span]:
        """The first box of each type at the top level."""
        return self._first_of_each(self._file)

    def _meta(self) -> dict[bytes, _Span]:
        """The first box of each type within `meta`."""
        meta = self._top.get(b"meta")
        # Version and flags come first.
        return self._first_of_each(replace(meta, at=meta.at + 4)) if meta else {}

    def _step(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise TooLarge(f"the avif has more than {self._most:,} boxes and entries, which no picture needs")

    def _boxes(self, within: _Span) -> Iterator[tuple[bytes, _Span]]:
        """The type and content of each box in a stretch."""
        data, at, end = within.data, within.at, within.end
        while at + 8 <= end:
            self._step()
            length, head = int.from_bytes(data[at : at + 4]), 8
            if length == 1:
                length, head = int.from_bytes(data[at + 8 : at + 16]), 16
            until = min(at + max(length, head), end) if length else end
            yield bytes(data[at + 4 : at + 8]), _Span(data, at + head, until)
            at = until

    def _first_of_each(self, within: _Span) -> dict[bytes, _Span]:
        """The content of the first box of each type."""
        found: dict[bytes, _Span] = {}
        for kind, content in self._boxes(within):
            found.setdefault(kind, content)
        return found

    def _items(self, meta: dict[bytes, _Span]) -> Iterator[tuple[Size, memoryview]]:
        if not {b"iinf", b"iloc", b"iprp"} <= meta.keys():
            return
        iinf = meta[b"iinf"]
        av1 = {item for item, at in self._item_types(iinf) if iinf.data[at : at + 4] == _AV1}
        stated = self._stated_sizes(meta[b"iprp"])
        for item, stream in self._streams(meta[b"iloc"], meta.get(b"idat")):
            if item in av1 and item in stated:
                yield stated[item], stream

    def _item_types(self, iinf: _Span) -> Iterator[tuple[int, int]]:
        """Each item and the offset of its type."""
        version = iinf.take(4) >> 24
        iinf.take(4 if version else 2)
        for kind, entry in self._boxes(iinf):
            if kind == b"infe":
                item = entry.take(4 if entry.take(4) >> 24 > 2 else 2)
                yield item, entry.at + 2

    def _stated_sizes(self, iprp: _Span) -> dict[int, Size]:
        """Width and height that each item's property `ispe` states."""
        sizes: dict[int, Size] = {}
        for item, kind, content in self._properties(iprp):
            if kind == b"ispe":
                content.take(4)
                sizes.setdefault(item, (content.take(4), content.take(4)))
        return sizes

    def _properties(self, iprp: _Span) -> Iterator[tuple[int, bytes, _Span]]:
        """Each item with the type and content of each of its properties."""
        known = [(b"", _Span(iprp.data, 0, 0)), *self._contents(iprp)]
        for kind, ipma in self._boxes(iprp):
            if kind != b"ipma":
                continue
            flags = ipma.take(4)
            for _ in range(ipma.take(4)):
                item = ipma.take(4 if flags >> 24 else 2)
                self._step()
                for _ in range(ipma.take(1)):
                    self._step()
                    number = ipma.take(2) & 0x7FFF if flags & 1 else ipma.take(1) & 0x7F
                    if number < len(known):
                        kind_of, content = known[number]
                        yield item, kind_of, replace(content)

    def _contents(self, iprp: _Span) -> Iterator[tuple[bytes, _Span]]:
        """The type and content of each property, which items share."""
        return self._boxes(self._first_of_each(iprp).get(b"ipco", _Span(iprp.data, 0, 0)))

    def _streams(self, iloc: _Span, idat: _Span | None) -> Iterator[tuple[int, memoryview]]:
        """The bytes of each item, by its number."""
        version, widths = iloc.take(4) >> 24, iloc.take(2)
        offset_width, length_width, base_width, index_width = (widths >> shift & 15 for shift in (12, 8, 4, 0))
        for _ in range(iloc.take(2 if version < 2 else 4)):
            self._step()
            item = iloc.take(2 if version < 2 else 4)
            method = iloc.take(2) & 15 if version else 0
            source = idat if method == _IN_IDAT and idat else self._file
            iloc.take(2)
            base = source.at + iloc.take(base_width)
            pieces = []
            for _ in range(iloc.take(2)):
                self._step()
                iloc.take(index_width if version else 0)
                start, length = base + iloc.take(offset_width), iloc.take(length_width)
                pieces.append(source.data[start : min(start + length, source.end) if length else source.end])
            # A file could list the same extent many times over, and joined they would fill the memory.
            whole = sum(map(len, pieces)) <= len(source.data)
            yield item, pieces[0] if len(pieces) == 1 or (pieces and not whole) else memoryview(b"".join(pieces))

    def _first_frame(self, track: _Span) -> tuple[Size, memoryview] | None:
        """Stated size and bytes of a track's first frame; None where that is not AV1."""
        inside = self._first_of_each(track)
        header = inside.get(b"tkhd")
        for kind in (b"mdia", b"minf", b"stbl"):
            inside = self._first_of_each(inside[kind]) if kind in inside else {}
        wide = b"co64" in inside
        described, lengths = inside.get(b"stsd"), inside.get(b"stsz")
        offsets = inside.get(b"co64" if wide else b"stco")
        if not (header and described and lengths and offsets):
            return None
        if described.data[described.at + 12 : described.at + 16] != _AV1:
            return None
        offsets.take(8)
        lengths.take(4)
        equal, _, first = lengths.take(4), lengths.take(4), lengths.take(4)
        at = offsets.take(8 if wide else 4)
        header.at = header.end - 8  # in 65,536ths of a pixel
        return (header.take(4) >> 16, header.take(4) >> 16), track.data[at : at + (equal or first)]
