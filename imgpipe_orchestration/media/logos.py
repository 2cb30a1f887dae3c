"""SVG logos: drawn as PNG before anything else sees them; the SVG itself is neither kept nor served."""

from __future__ import annotations

from imgpipe_orchestration.media.model import DataType
from imgpipe_orchestration.services import Services

SVG_TYPE = "image/svg+xml"


def drawn(services: Services, data: bytes, data_type: DataType) -> bytes:
    """A logo's SVG as PNG; anything else as it is.

    Raises:
        BadImage, TooLarge: the SVG cannot be drawn within the limits.
    """
    from imgpipe_orchestration.imaging.reading.svg import is_svg, rasterised

    if data_type is not DataType.LOGO or not is_svg(data):
        return data
    return services.logo_workshop.call(rasterised, data)


def extension(path: str) -> str:
    """The extension of an upload's path, without the dot; of an SVG that of what is drawn."""
    found = path.rpartition(".")[2].lower()
    return "png" if found == "svg" else found
