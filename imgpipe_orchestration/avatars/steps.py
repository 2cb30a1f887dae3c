"""The seven steps of a persona. Each commits its result under the claim's fence before the next begins."""

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

from imgpipe_orchestration.avatars import records, store
from imgpipe_orchestration.avatars.drawing import bought, buyer_of, draw
from imgpipe_orchestration.avatars.lanes import Lanes, turn
from imgpipe_orchestration.avatars.lifecycle import BRIEFS, PORTRAITS, brief_of, picture_number
from imgpipe_orchestration.avatars.model import PICTURES, ImagePrompt, PersonaStatus, Step, persona_prefix, public_url
from imgpipe_orchestration.avatars.records import Persona
from imgpipe_orchestration.billing.calls import Answer, PaidCall, Purchase, first_answer
from imgpipe_orchestration.errors import BadImage, NotFound, NotWhole, Permanent, Retryable, TooLarge
from imgpipe_orchestration.imaging.portraits import finishing
from imgpipe_orchestration.imaging.portraits.finishing import Files
from imgpipe_orchestration.lifecycle.trash import dropping
from imgpipe_orchestration.moderation import verdicts
from imgpipe_orchestration.moderation.judging import AwaitsReview, admit
from imgpipe_orchestration.moderation.model import Subject
from imgpipe_orchestration.partners.flowise import PROSE
from imgpipe_orchestration.partners.models import Choice
from imgpipe_orchestration.partners.openai import Query
from imgpipe_orchestration.partners.usage import Priced
from imgpipe_orchestration.storage.claims import Claim
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.telemetry.logs import logger
from imgpipe_orchestration.wiring.services import Services

log = logger(__name__)
Found = TypeVar("Found")


class Rejected(Permanent):
    """A person rejected the brief, or a picture."""


Made = set[tuple[Step, str, int]]
"""The steps that people were taken through: which, the day on which their task was asked for, and who."""

ALL_STEPS = frozenset(Step)
CACHE_CONTROL = "public, max-age=31536000"
"""A year. The picture of a key changes only when a failed persona is made again."""
TRIES = 2
"""A persona fails after so many bought pictures that could not be used."""

_BEFORE = {"base_object": Step.PROMPT, "grid_object": Step.BASE_UPLOAD}
"""The last step before the one that buys the picture."""


@dataclass
class _Place:
    """What the steps of one persona need, and pictures of earlier steps that are still in memory."""

    services: Services
    claim: Claim
    lanes: Lanes
    bought: dict[str, bytes] = field(default_factory=dict)
    cut: tuple[Files, ...] = ()

    def data(self, persona: Persona, name: str) -> bytes:
        """A bought picture (`base_object` or `grid_object`), from memory or from the bucket.

        Raises:
            Retryable: it is not in the bucket, or not whole, as after a failover of the store.
            NotFound: nor was it there at the earlier attempts. A retry of the persona buys it again.
            _Again, BadImage: nor was it whole; see `_buy_again`.
        """
        key = getattr(persona, name) or ""
        if key not in self.bought:
            last = self.claim.failures + 1 >= store.IMAGES.max_attempts
            try:
                self.bought[key] = bought(self.services, key)
            except NotFound as gone:
                if not last:
                    raise Retryable(f"The bought picture {key} is not in the bucket", detail=gone.detail) from gone
                self.commit(_BEFORE[name], **{name: None})
                raise
            except NotWhole as torn:
                if not last:
                    raise
                _buy_again(self, persona, name, torn.public)
        return self.bought[key]

    def commit(self, step: Step, judged: Collection[int] = (), subject: Subject = PORTRAITS, /, **values: Any) -> None:
        """Keep what a step made, under the claim's fence; the next step has all attempts again.

        Args:
            judged: the pictures that this publishes, or the brief that was drawn (by their `subject`). A rejection
                after that deletes the person, or the task.

        Raises:
            AwaitsReview: one of them is held since it was judged, or was rejected; the next attempt says which.
        """
        with self.services.claims.fenced(self.claim) as connection:
            for number in judged:
                found = verdicts.find(connection, subject.name, number, lock=True)
                if found is not None and found.holding:
                    raise AwaitsReview(f"Held for review: {found.reason or 'not judged yet'}", retry_after=1)
            records.commit(connection, self.claim.item_id, step=int(step), **values)
            self.services.claims.progress(connection, self.claim)


class _Again(Exception):
    """The picture cannot be used: go on with the step that buys another one."""


def picture(services: Services, claim: Claim, lanes: Lanes, steps: Collection[Step], made: Made) -> None:
    """Take one persona through the steps that are still to be done, as far as `steps` allows; note each in `made`.

    Raises:
        PartnerRefused, BadImage: this persona cannot be pictured.
        Retryable: a partner or backend failed; finished steps stay committed.
        LeaseLost: the task was cancelled, or another worker has taken the persona over.
    """
    persona = _load(services, claim)
    if persona.status is not PersonaStatus.PENDING:
        # For example, somebody requeued a failed persona of a cancelled task: there is nothing to do.
        with services.claims.fenced(claim) as connection:
            services.claims.finish(connection, store.IMAGES, claim)
        return
    task, place = persona.public_task_id, _Place(services, claim, lanes)
    log.info(f"[Task {task}] Processing images for persona: {persona.name} (result_id={persona.id})")
    while persona.step < Step.URLS:
        step = Step(persona.step + 1)
        if step not in steps:
            return
        do, words = _DO[step]
        log.info(f"[Task {task}] [{persona.name}] Step {step.value}/{len(Step)}: {words}")
        try:
            with _dropping(services, persona):
                do(place, persona)
            made.add((step, persona.day, persona.id))
        except _Again as reason:
            log.warning(f"[Task {task}] [{persona.name}] asking once more: {reason}")
        persona = _load(services, claim)
    log.info(f"[Task {task}] [{persona.name}] Image processing completed successfully!")


@contextmanager
def _dropping(services: Services, persona: Persona) -> Iterator[None]:
    """Wraps a step in `trash.dropping`, both for the person and for the whole task."""
    bucket, buyer = services.avatars_bucket, buyer_of(persona)
    keys = (stored.key for stored in bucket.list(persona_prefix(persona.task_id, persona.id)))
    with dropping(services, buyer.tenant, bucket, keys), dropping(services, buyer.item, bucket, keys):
        yield


def _load(services: Services, claim: Claim) -> Persona:
    with transaction(services.engine) as connection:
        return records.persona(connection, claim.item_id)


def _prompt(place: _Place, persona: Persona) -> None:
    services = place.services
    names = ("firstname", "lastname", "gender", "age", "nationality", "occupation", "bio", "appearance", "style")
    asked = {name: getattr(persona, name) for name in names}
    prompt = services.prompts["image_prompt"]

    def ask(choice: Choice) -> Answer:
        parameters: dict[str, Any] = {"persona": persona.id}
        if speaks_openai := services.models.speaks_openai(choice.provider):
            parameters["prompt"] = prompt.version(ImagePrompt, asked="")

        def purchase() -> Purchase:
            if speaks_openai:
                question = prompt.question(asked=json.dumps(asked, ensure_ascii=False))
                query = Query(question, prompt.shaped(ImagePrompt), instructions=prompt.instructions())
                written = services.openai(choice.provider).answer(query, model=choice.model)
                return Purchase(written.usage, value=written.value.prompt)
            prediction: Priced[str] = services.flowise(choice.provider).predict(choice.model, asked, PROSE)
            return Purchase(prediction.usage, value=prediction.value)

        call = PaidCall.of(
            choice.provider,
            "prompt",
            choice.model,
            inputs=[f"{name}: {value}" for name, value in asked.items()],
            parameters=parameters,
        )
        return services.ledger.buy(call, purchase, buyer=buyer_of(persona))

    with turn(place.lanes, place.lanes.flowise, services, place.claim):
        _admit(place, BRIEFS, {persona.task_id: brief_of(place.services, persona.task_id)})
        _, answer = first_answer(services.models.choices("prompt"), ask, task="prompt")
    place.commit(Step.PROMPT, image_prompt=answer.value)


def _base(place: _Place, persona: Persona) -> None:
    answer = _drawn(place, persona, None)
    made = {"base_object": answer.object_key, "model": answer.usage.model, "standin": answer.usage.standin}
    place.commit(Step.BASE, [persona.task_id], BRIEFS, **made)


def _base_upload(place: _Place, persona: Persona) -> None:
    found = _looked_at(place, persona, "base_object", finishing.selfie)
    pictures = {picture_number(persona): place.data(persona, "base_object")}
    _admit(place, PORTRAITS, pictures, "base_object")
    described = _publish(place.services, persona, "base", found.files[0])
    place.commit(Step.BASE_UPLOAD, pictures, images={"base": described}, quality={"base": found.measured})


def _grid(place: _Place, persona: Persona) -> None:
    answer = _drawn(place, persona, place.data(persona, "base_object"))
    place.commit(Step.GRID, grid_object=answer.object_key)


def _drawn(place: _Place, persona: Persona, base: bytes | None) -> Answer:
    with turn(place.lanes, place.lanes.images, place.services, place.claim) as leave:
        _admit(place, BRIEFS, {persona.task_id: brief_of(place.services, persona.task_id)})
        return draw(place.services, persona, base, place.bought, answered=leave)


def _split(place: _Place, persona: Persona) -> None:
    found = _looked_at(place, persona, "grid_object", finishing.four)
    place.cut = found.files
    place.commit(Step.SPLIT, split=[list(cell) for cell in found.cells], quality={"pictures": found.measured})


def _admit(place: _Place, subject: Subject, contents: Mapping[int, bytes | str], name: str = "") -> None:
    """Let a brief be used, or the pictures that a bought one (`name`) gives be published, once they have been judged.

    Raises:
        AwaitsReview: one of them is held.
        Rejected: a person rejected one of them. A retry of the persona buys another picture.
    """
    for reason in admit(place.services, place.claim.owner, subject, contents).values():
        if name:
            place.commit(_BEFORE[name], **{name: None})
        raise Rejected(f"Rejected in review: {reason}")


def _looked_at(place: _Place, persona: Persona, name: str, look: Callable[..., Found], *more: Any) -> Found:
    """What `look` makes of a bought picture, if usable. One that cannot be decoded, or crashes a worker, is not."""
    data = place.data(persona, name)  # outside of `try`: a lost object is not an unusable picture
    label = finishing.statement(persona.model or "", standin=persona.standin)
    try:
        return place.services.workshop.call(look, data, *more, label)
    except (BadImage, TooLarge) as error:
        _buy_again(place, persona, name, error.public)


def _upload(place: _Place, persona: Persona) -> None:
    if not place.cut:
        # It was usable in step SPLIT; if it is not now, the stored object is damaged.
        place.cut = _looked_at(place, persona, "grid_object", finishing.these, persona.split)
    pictures = {picture_number(persona, cell): one.png for cell, one in enumerate(place.cut)}
    _admit(place, PORTRAITS, pictures, "grid_object")
    described = {
        f"image_{number}": _publish(place.services, persona, f"image_{number}", files)
        for number, files in enumerate(place.cut)
    }
    place.commit(Step.UPLOAD, pictures, images=described)


def _publish(services: Services, persona: Persona, name: str, files: Files) -> dict[str, Any]:
    """Upload the original and its thumbnails, and describe them."""
    prefix = persona_prefix(persona.task_id, persona.id)
    key, png = f"{prefix}{name}.png", files.png
    thumbnails = {kind: f"{prefix}{name}_thumb.{kind}" for kind in files.thumbnails}
    uploads = [(key, png, "png"), *((thumbnails[kind], data, kind) for kind, data in files.thumbnails.items())]
    for each, data, kind in uploads:
        services.avatars_bucket.put(each, data, content_type=f"image/{kind}", cache_control=CACHE_CONTROL)
    return {
        "key": key,
        "sha256": hashlib.sha256(png).hexdigest(),
        "bytes": len(png),
        "width": int.from_bytes(png[16:20], "big"),
        "height": int.from_bytes(png[20:24], "big"),
        "thumbnails": thumbnails,
    }


def _urls(place: _Place, persona: Persona) -> None:
    names = ["base", *(f"image_{number}" for number in range(PICTURES))]
    urls = [public_url(place.services.settings, persona.images[name]["key"]) for name in names]
    with place.services.claims.fenced(place.claim) as connection:
        records.complete(connection, persona.id, urls)
        place.services.claims.finish(connection, store.IMAGES, place.claim)
        store.settle(connection, persona.task_id)


_DO: dict[Step, tuple[Callable[[_Place, Persona], None], str]] = {
    Step.PROMPT: (_prompt, "Generating image prompt via Flowise..."),
    Step.BASE: (_base, "Generating base selfie image..."),
    Step.BASE_UPLOAD: (_base_upload, "Uploading base image to S3..."),
    Step.GRID: (_grid, "Generating 4-image grid..."),
    Step.SPLIT: (_split, "Splitting and trimming grid image..."),
    Step.UPLOAD: (_upload, "Uploading 4 split images to S3..."),
    Step.URLS: (_urls, "Updating database with image URLs..."),
}
"""What each step does, and what the log says at its beginning."""


def _buy_again(place: _Place, persona: Persona, name: str, reason: str) -> NoReturn:
    """Go back to the step that buys the picture (`base_object` or `grid_object`), or give the persona up.

    Raises:
        _Again: another one is to be bought.
        BadImage: `TRIES` pictures could not be used.
    """
    what, tries = ("selfie", "base_tries") if name == "base_object" else ("grid", "grid_tries")
    made = getattr(persona, tries)
    if made >= TRIES:
        raise BadImage(f"No usable {what} in {made} tries: {reason}")
    place.commit(_BEFORE[name], **{name: None, tries: made + 1})
    raise _Again(f"the {what} cannot be used: {reason}")
