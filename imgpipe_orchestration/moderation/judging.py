"""Asking a provider about things, also beside the work of the run that took a thing in."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from functools import partial
from types import TracebackType

from sqlalchemy import text

from imgpipe_orchestration.billing.calls import Buyer, PaidCall, Purchase, first_answer
from imgpipe_orchestration.errors import BadImage, ImageTooSlow, NotFound, Permanent, Planned, SettingsError, TooLarge
from imgpipe_orchestration.moderation import model, verdicts
from imgpipe_orchestration.moderation.model import Subject, digest_of
from imgpipe_orchestration.moderation.verdicts import JUDGE, Verdict
from imgpipe_orchestration.partners.models import Choice
from imgpipe_orchestration.storage.claims import Claim
from imgpipe_orchestration.storage.deletions import DELETED, Deleted, is_deleted
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.storage.work import work_through
from imgpipe_orchestration.telemetry import tracing
from imgpipe_orchestration.wiring.services import Services

THREADS = 8
"""Things that one run asks about at once. The provider's own headers bound the rate."""
SAFE_SEARCH = ("SAFE_SEARCH_DETECTION",)
PATIENCE_SECONDS = 10.0
"""How long a report, and a run at its end, wait for a verdict: a provider may hang."""


class Judges(AbstractContextManager["Judges", None]):
    """Judges beside a run's other work, so that neither waits for the other. What it cannot judge is left to the queue.

    To be used within the run's `Claims.hold`.
    """

    def __init__(self, services: Services, owner: str, subject: Subject) -> None:
        self._services = services
        self._owner = owner
        self._subject = subject
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="judge")
        self._begun: dict[int, tuple[Future[None], float]] = {}

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None:
            wait([future for future, _ in self._begun.values()], timeout=PATIENCE_SECONDS)
        self._pool.shutdown(cancel_futures=True)

    def begin(self, item: int, *, user_id: int | None, sha256: str, content: bytes | str | None = None) -> None:
        """Ask for the verdict on a thing that has none yet and start judging it. Its `content` is read if the caller
        passes none."""
        with transaction(self._services.engine) as connection:
            number = verdicts.ask(self._services, connection, self._subject, item, user_id=user_id, sha256=sha256)
        if number is not None:
            judging = self._pool.submit(tracing.carried(self._judge), number, content)
            self._begun[item] = (judging, time.monotonic() + PATIENCE_SECONDS)

    def wait_for(self, item: int) -> None:
        """Wait for the verdict on a thing that is being judged, until PATIENCE_SECONDS after that was begun."""
        if item in self._begun:
            judging, until = self._begun[item]
            wait([judging], timeout=max(0.0, until - time.monotonic()))

    def _judge(self, number: int, content: bytes | str | None) -> None:
        claims = self._services.claims
        batch = claims.claim_these(JUDGE, self._owner, [number])
        judging = partial(judge, self._services, subject_of=lambda _: self._subject, content=content)
        work_through(claims, JUDGE, batch, judging, threads=1)


class NoJudge(Permanent):
    """The provider cannot judge such a thing."""


class _InTrash(Planned):
    """The thing is in the trash. If it is restored, it is judged at once."""


class AwaitsReview(Planned):
    """It is held until a person has decided, or a provider that was away has."""


def admit(services: Services, owner: str, subject: Subject, contents: Mapping[int, bytes | str]) -> dict[int, str]:
    """Judge what the caller is about to use or publish, unless it has a verdict already. Returns why a person rejected
    the things that may not be used.

    Args:
        owner: of the caller's claims, whose lease is kept meanwhile.

    Raises:
        AwaitsReview: one of the others may not be used yet.
    """
    with Judges(services, owner, subject) as judges:
        for item, content in contents.items():
            judges.begin(item, user_id=None, sha256=digest_of(content), content=content)
    with transaction(services.engine) as connection:
        found = verdicts.holding(connection, subject.name, list(contents))
    rejected = {one.item: one.reason or "without a reason" for one in found if one.state is model.State.REJECTED}
    for one in found:
        if one.item not in rejected:
            raise AwaitsReview(f"Held for review: {one.reason or 'not judged yet'}", retry_after=60)
    return rejected


def judge(
    services: Services, claim: Claim, subject_of: Callable[[str], Subject], content: bytes | str | None = None
) -> None:
    """Judge one thing, which is read where its `content` is not given. Repeated, it takes the answer that was bought.

    Raises:
        SettingsError: nobody judges.
        PartnerUnavailable, RateLimited, PartnerRefused: the provider gives no verdict now, or at all.
        NotFound: it is not there.
    """
    query = text(f"select {verdicts.COLUMNS} from verdicts v where id = :id")
    with transaction(services.engine) as connection:
        row = connection.execute(query, {"id": claim.item_id}).one_or_none()
    if row is None or services.settings.moderation == "off":
        with services.claims.fenced(claim) as connection:
            services.claims.finish(connection, JUDGE, claim)
        return
    found = verdicts.verdict(row)
    subject = subject_of(found.kind)
    try:
        provider, answered_by, scores = _asked(services, subject, found, content)
    except (BadImage, ImageTooSlow, TooLarge) as error:  # its own pipeline has it among the failures
        with services.claims.fenced(claim) as connection:
            verdicts.not_judged(connection, [found.id], error.public)
            services.claims.finish(connection, JUDGE, claim)
        return
    with services.claims.fenced(claim) as connection:
        verdicts.judged(services, connection, subject, found, provider=provider, answered_by=answered_by, scores=scores)
        services.claims.finish(connection, JUDGE, claim)


def _asked(
    services: Services, subject: Subject, found: Verdict, content: bytes | str | None
) -> tuple[str, str, dict[str, float]]:
    """The provider and the model that answered, and the scores."""
    from imgpipe_orchestration.imaging.measuring import look

    name = subject.what(found.item)
    if subject.named is not None:
        with transaction(services.engine) as connection:
            name = subject.named(connection, found.item)
    buyer = Buyer(subject.kind.pipeline, name, "" if found.user_id is None else str(found.user_id))
    try:
        data = subject.content(services, found.item) if content is None else content
    except (Deleted, NotFound) as gone:
        with transaction(services.engine) as connection:
            if not is_deleted(connection, subject.what(found.item)):
                raise
        raise _InTrash(DELETED, retry_after=3600) from gone
    choices = services.models.choices("moderate")
    if not choices:
        raise SettingsError("Nothing is judged: MODERATION_PROVIDER is none or has no key")
    if isinstance(data, str):
        choices = [one for one in choices if services.models.speaks_openai(one.provider)]
        if not choices:
            raise NoJudge("Google does not judge texts: a person decides.")
    seen = None if isinstance(data, str) else services.workshop.call(look, data)

    def ask(one: Choice) -> tuple[str, dict[str, float]]:
        if seen is not None and not services.models.speaks_openai(one.provider):
            return _google(services, one, seen.preview, seen.preview_size, buyer)
        return _openai(services, one, data if seen is None else seen.preview, buyer)

    by, (answered_by, scores) = first_answer(choices, ask, task="moderate")
    return by.provider, answered_by, scores


def _openai(services: Services, by: Choice, what: bytes | str, buyer: Buyer) -> tuple[str, dict[str, float]]:
    def purchase() -> Purchase:
        answer = services.moderator(by.provider).judge(what, model=by.model)
        return Purchase(answer.usage, {"scores": answer.value})

    call = PaidCall.of(by.provider, "moderation", by.model, inputs=[what])
    bought = services.ledger.buy(call, purchase, buyer=buyer)
    return bought.usage.model or by.model, bought.value["scores"]


def _google(
    services: Services, by: Choice, preview: bytes, size: tuple[int, int], buyer: Buyer
) -> tuple[str, dict[str, float]]:
    """Google's safe search alone: which other features the analysis asks for depends on the picture's kind."""
    from imgpipe_orchestration.partners.google_vision import MODEL, columns

    def purchase() -> Purchase:
        answer = services.google_vision(by.provider).annotate(preview, size=size, features=SAFE_SEARCH)
        return Purchase(answer.usage, answer.value)

    call = PaidCall.of(by.provider, "safe_search", MODEL, inputs=[preview], parameters={"features": list(SAFE_SEARCH)})
    said = columns(services.ledger.buy(call, purchase, buyer=buyer).value["raw"], size)["safe_search"]
    scores = {name: model.LIKELIHOODS[word] for name, word in said.items() if word in model.LIKELIHOODS}
    unsaid = {name: 1.0 for name in model.GOOGLES if name not in scores}
    unclear = model.over(services.settings, unsaid) and not model.over(services.settings, scores)
    if not scores or (unclear and services.settings.moderation == "hold"):  # what is not held, nobody would decide on
        raise NoJudge(f"Google Vision does not say how likely this is: {', '.join(unsaid)}. A person decides.")
    return MODEL, scores
