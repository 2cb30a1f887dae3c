"""AVIFs with a clean aperture, the only part that is meant to be seen. Pillow's reader shows all of it."""

from __future__ import annotations

import io

from PIL import AvifImagePlugin, Image, ImageFile

from imgpipe_orchestration.imaging.geometry import PixelBox


class PaddedAvif(AvifImagePlugin.AvifImageFile):
    """One that decodes to its clean aperture."""

    def show_only(self, part: PixelBox) -> None:
        """Set the part, in pixels; call it before the image is decoded."""
        left, top, right, bottom = part
        channels = len(self.getbands())
        start, row = channels * (top * self.width + left), channels * self.width
        self._size = (right - left, bottom - top)
        self.tile = [ImageFile._Tile("raw", (0, 0, *self._size), start, (self.mode, row, 1))]

    def load_seek(self, pos: int) -> None:
        if self.fp:
            self.fp.seek(pos)


def opened(data: bytes, part: PixelBox) -> Image.Image:
    """The picture, not decoded; `part` is in pixels as they are stored."""
    image = PaddedAvif(io.BytesIO(data))
    image.show_only(part)
    return image
