"""How the search differs from format to format: figures fitted to photographs, which `chain` goes by."""

from __future__ import annotations

from dataclasses import dataclass

from imgpipe_orchestration.imaging.encoding.levels import Lossy


@dataclass(frozen=True, slots=True)
class Ways:
    """How the qualities of a format are searched. Figures in points are from 209 photographs.

    An octave is a factor of two. A picture's surprise is by how many points it scores better than its size predicts.
    """

    tries: int
    """Encodings that the search for a quality may take, and as many further ones a picture whose first try missed."""
    begins: dict[Lossy, tuple[float, float, float]]
    """The level where the search begins, as a linear function for each leader: factors for the leader's level and for
    its octaves of bytes per pixel, and a constant. Fitted to 78 photographs, WebP's to 167: half of the searches begin
    within 1.1 points of the target. Without a leader, the search begins at the recipe's quality."""
    excerpted: float
    """Points from the target at which the tries of an excerpt end. Its picture then gets the quality that they predict;
    as JPEG that of the nearest try, because an original that was one has jumps of up to 8 points between neighbouring
    qualities."""
    followed: float
    """The share of the leaders' surprise that this format has as well."""
    texture: float
    """Points that a picture lacks per octave of the nearest leader's bytes per pixel above those that its size
    predicts: for AVIF, detail needs more and softness less than for WebP, for WebP less and more than for JPEG."""
    drift: float
    """Points that the largest picture needs more per octave of pixels above the searched one."""
    settles: float
    """Share of the distance to the usual level that is lost per octave of pixels: a picture that needs a high level
    when small, for its grain or an earlier JPEG's blocks, needs less of it when large."""


WAYS: dict[Lossy, Ways] = {
    "jpeg": Ways(
        tries=5,
        begins={},
        excerpted=0.6,
        followed=0.0,
        texture=0.0,
        drift=-0.3,
        settles=0.17,
    ),
    "webp": Ways(
        tries=3,
        begins={"jpeg": (0.54, -3.7, 33.0)},
        excerpted=4.5,
        followed=0.4,
        texture=-1.9,
        drift=1.0,
        settles=0.12,
    ),
    "avif": Ways(
        tries=4,
        begins={"jpeg": (0.44, 4.0, 4.4), "webp": (0.62, 4.1, -13.4)},
        excerpted=2.8,
        followed=0.7,
        texture=2.5,
        drift=0.2,
        settles=0.05,
    ),
}
