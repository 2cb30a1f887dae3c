"""Everything that can be deleted, and everything that is judged, of all features."""

from imgpipe_orchestration.avatars.lifecycle import BRIEFS, PERSONAS, PORTRAITS, TASKS
from imgpipe_orchestration.lifecycle.kind import Kind
from imgpipe_orchestration.listings.lifecycle import LISTINGS
from imgpipe_orchestration.listings.moderation import LISTED
from imgpipe_orchestration.media.lifecycle import MEDIA, UPLOADED
from imgpipe_orchestration.moderation.model import Subject
from imgpipe_orchestration.vision_reports.lifecycle import BATCHES, FINDINGS

KINDS: tuple[Kind, ...] = (MEDIA, LISTINGS, TASKS, PERSONAS, BATCHES)
_BY_NAME = {kind.name: kind for kind in KINDS}


def kind_of(name: str) -> Kind:
    """The kind of this name, which a row of `deletions` has."""
    return _BY_NAME[name]


SUBJECTS: tuple[Subject, ...] = (UPLOADED, LISTED, BRIEFS, PORTRAITS, FINDINGS)


def subject_of(name: str) -> Subject:
    """The subject of this name, which a row of `verdicts` has."""
    return next(subject for subject in SUBJECTS if subject.name == name)
