"""The project's error tree.

    ImgpipeError
    ├── Retryable                 a later try may succeed
    │   ├── PartnerUnavailable    an outside API is down, slow or answered 5xx            502
    │   │   ├── PartnerAway       no connection, or a 5xx: certainly not charged
    │   │   ├── PartnerStumbled   a 500 that is about this one question
    │   │   └── UnreadableAnswer  it answered, perhaps charged, but not in a form we can read
    │   ├── RateLimited           an outside API asks to slow down (carries retry_after)  503
    │   │   └── HeldBack          it had asked so before: nothing was sent (also Planned)
    │   ├── Planned               nothing failed: the item waits and spends no attempt    503
    │   │   └── SpendingPaused    no quota, budget or valid key
    │   ├── ImageTooSlow          a busy machine took too long over an image              503
    │   ├── NotWhole              the object store returns other bytes than were stored   503
    │   ├── BackendUnavailable    our own database, object or document store is away      503
    │   │   ├── OutOfSpace        its disk is full                                        507
    │   │   └── NotMigrated       its schema is older than this code                      503
    │   └── SettingsError         an environment variable that cannot be used             503
    ├── Permanent                 the same input will fail again
    │   ├── BadInput              a request or a row that makes no sense                  422
    │   ├── BadImage              bytes that are not an image we can use                  415
    │   ├── TooLarge              more bytes, pixels, frames or items than the limit      413
    │   ├── Unauthenticated       no credential, or one that is wrong or expired          401
    │   ├── Forbidden             a right credential for something else; a blocked host  403
    │   ├── NotFound              no such thing                                           404
    │   ├── Conflict              the thing is in a state that forbids this               409
    │   ├── Gone                  it was here and was taken away                          410
    │   └── PartnerRefused        an outside API said no for good (4xx, policy)           502
    └── LeaseLost                 another worker took the item over: drop it, write nothing

Every error has its HTTP status, a message that may be shown to the caller, and whether it is logged for operators. What
callers must not see (e.g. a partner's raw answer) goes into `detail`.
"""

import re
from typing import Any, ClassVar


class ImgpipeError(Exception):
    """Root of every error this project raises on purpose.

    Args:
        public: is shown to callers and operators.
        detail: goes to logs only.
        field: names the part of a request that is the culprit.
        retry_after: the pause that the other side asked for, seconds.
        partner_status: the HTTP status of an outside API's refusal; None when there was none, so that it is not known
            whether it did what it was asked.
    """

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    """By default the words of the class's name."""
    code: ClassVar[str] = "imgpipe-error"
    """A stable machine-readable name, e.g. `bad-image`."""
    report: ClassVar[bool] = True
    """Whether it is logged for operators; errors that only concern the caller are not."""
    usage: Any = None
    """What a partner charged for an answer that could not be used (`partners.usage.Usage`); None where nothing came
    that it charges for."""

    def __init_subclass__(cls) -> None:
        words = re.sub("(?<!^)(?=[A-Z])", " ", cls.__name__.lstrip("_"))
        cls.code = words.lower().replace(" ", "-")
        if "title" not in cls.__dict__:
            cls.title = words.capitalize()

    def __init__(
        self,
        public: str,
        *,
        detail: str | None = None,
        field: str | None = None,
        retry_after: float | None = None,
        partner_status: int | None = None,
    ) -> None:
        super().__init__(public)
        self.public = public
        self.detail = detail
        self.field = field
        self.retry_after = retry_after
        self.partner_status = partner_status


class Retryable(ImgpipeError):
    status = 503
    title = "Temporarily unavailable"
    spends_attempt: ClassVar[bool] = True
    """Whether a failure of this kind counts against the item's attempts."""


class PartnerUnavailable(Retryable):
    status = 502


class PartnerAway(PartnerUnavailable):
    """An outside API cannot be reached or answers 5xx, for which nobody charges, so a paid call may be repeated freely.

    Not for calls that timed out or broke off: those may be charged. A delivery that was answered 5xx (`partner_status`)
    may still have arrived.
    """


class PartnerStumbled(PartnerUnavailable):
    """An outside API answers 500 to this one question, with a message of its own: a content filter, or a parser that
    gave up.

    Asking again may help, but nobody else has to wait meanwhile, and after a few tries the question is given up.
    """


class UnreadableAnswer(PartnerUnavailable):
    """An outside API answered in a way we cannot read: broken JSON, another shape, an invalid model answer.

    It was probably charged, so the call is not repeated at once, but with the item's next attempt.
    """


class RateLimited(Retryable):
    """An outside API asked us to slow down."""


class Planned(Retryable):
    """Nothing failed: the item waits, as it should, for an answer, a person, or the end of a pause."""

    spends_attempt = False


class HeldBack(Planned, RateLimited):
    """Nothing was sent: the outside API had asked us to slow down over another call, and has not been asked for this
    item."""


class SpendingPaused(Planned):
    """Paid work has to wait, through no fault of the item: the provider's quota or our budget is used up, or the
    provider does not accept our credential."""


class ImageTooSlow(Retryable):
    """Work on an image took too long by the clock, but not too much CPU time: the machine was busy."""


class NotWhole(Retryable):
    """The object store returns other bytes than were stored: it has just failed over, a proxy answers with a page of
    its own, or the object is damaged."""


class BackendUnavailable(Retryable):
    """PostgreSQL, the object store or MongoDB cannot be reached. Not the item's failure."""

    spends_attempt = False


class OutOfSpace(BackendUnavailable):
    status = 507


class NotMigrated(BackendUnavailable):
    title = "Database not migrated"

    def __init__(self, *, detail: str | None = None) -> None:
        super().__init__("The database's schema is not up to date: run `imgpipe migrate`.", detail=detail)


class SettingsError(Retryable):
    """An environment variable is missing or cannot be used. What needs it waits until that is mended."""

    title = "Invalid setting"
    spends_attempt = False


class Permanent(ImgpipeError):
    status = 422
    title = "Cannot be done"
    report = False


class BadInput(Permanent):
    title = "Invalid input"


class BadImage(Permanent):
    status = 415
    title = "Not a usable image"


class TooLarge(Permanent):
    status = 413


class Unauthenticated(Permanent):
    status = 401
    title = "Not authenticated"


class Forbidden(Permanent):
    status = 403


class NotFound(Permanent):
    status = 404


class Conflict(Permanent):
    status = 409


class Gone(Permanent):
    status = 410


class PartnerRefused(Permanent):
    """An outside API said no for good: bad credential, unknown model, content policy.

    A `partner_status` of 404 or 409 may mean something to the caller.
    """

    status = 502
    report = True


class LeaseLost(ImgpipeError):
    """The claim on an item is no longer ours. The worker drops the item and writes nothing more about it."""

    status = 409
    report = False
