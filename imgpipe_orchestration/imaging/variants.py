"""What a rendering returns: plain values that can be pickled, without Pillow images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from imgpipe_orchestration.imaging.formats import MIME_OF, Format
from imgpipe_orchestration.imaging.subject.focus import FocalBox

Background = Literal["original", "removed"]


@dataclass(frozen=True, slots=True)
class Variant:
    """One file: a size in a format."""

    size: str
    """Name of the size in the recipe."""
    format: Format
    background: Background
    width: int
    height: int
    data: bytes
    sha256: str
    """Hex digest of `data`."""
    quality: int
    """In the encoder's own scale; 0 for PNG, and for WebP without loss."""
    score: float | None
    """SSIMULACRA2 measured for this file; None where it was not."""

    @property
    def mime(self) -> str:
        return MIME_OF[self.format]


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What the original was."""

    format: str
    width: int
    height: int
    """Of the upright image."""
    copyright: str
    credit: str


@dataclass(frozen=True, slots=True)
class Rendition:
    """All that was made of one original."""

    variants: tuple[Variant, ...]
    source: SourceFacts
    focus: FocalBox
    notes: tuple[str, ...]
    """Sentences for people: sizes smaller than asked, formats dropped, profiles ignored, and so on."""
    recipe: str
    """Version of the recipe."""
