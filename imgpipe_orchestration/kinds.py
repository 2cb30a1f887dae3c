"""Everything that can be deleted, of all features: what `lifecycle`, retention and garbage collection work on."""

from __future__ import annotations

from imgpipe_orchestration.avatars.lifecycle import PERSONAS, TASKS
from imgpipe_orchestration.lifecycle.kind import Kind
from imgpipe_orchestration.listings.lifecycle import LISTINGS
from imgpipe_orchestration.media.lifecycle import MEDIA
from imgpipe_orchestration.vision_reports.lifecycle import BATCHES

KINDS: tuple[Kind, ...] = (MEDIA, LISTINGS, TASKS, PERSONAS, BATCHES)
_BY_NAME = {kind.name: kind for kind in KINDS}


def kind_of(name: str) -> Kind:
    """The kind of this name, which a row of `deletions` has."""
    return _BY_NAME[name]
