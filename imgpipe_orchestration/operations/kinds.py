"""Everything that can be deleted, and everything that is judged, of all features."""

from imgpipe_orchestration.avatars.lifecycle import BRIEFS, PERSONAS, PORTRAITS, TASKS
from imgpipe_orchestration.errors import NotFound
from imgpipe_orchestration.lifecycle.kind import Kind
from imgpipe_orchestration.listings.lifecycle import LISTED, LISTINGS
from imgpipe_orchestration.media.lifecycle import MEDIA, UPLOADED
from imgpipe_orchestration.moderation.model import Subject
from imgpipe_orchestration.moderation.verdicts import JUDGE
from imgpipe_orchestration.vision_reports.lifecycle import BATCHES, FINDINGS

KINDS: tuple[Kind, ...] = (MEDIA, LISTINGS, TASKS, PERSONAS, BATCHES)
USERS_QUEUES = [*(queue.name for kind in KINDS if kind.live for queue in kind.queues), JUDGE.name]
"""Queues whose tenants are users."""
KIND = {kind.name: kind for kind in KINDS}
"""By its name, which a row of `deletions` has."""

SUBJECTS: tuple[Subject, ...] = (UPLOADED, LISTED, BRIEFS, PORTRAITS, FINDINGS)
_SUBJECT = {subject.name: subject for subject in SUBJECTS}


def subject_of(name: str) -> Subject:
    """The subject of this name, which a row of `verdicts` has.

    Raises:
        NotFound: there is none.
    """
    if name not in _SUBJECT:
        raise NotFound(f"Nothing of {name!r:.40} is reviewed.")
    return _SUBJECT[name]
