"""Buys pictures from OpenAI, each at most once, even if a worker dies between answer and commit.

A bought picture goes into a local file, then the bucket, then its key into the ledger. Whoever takes over looks in all
three before asking again. If the bucket is away, nothing is bought.
"""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from imgpipe_orchestration.avatars.model import persona_prefix
from imgpipe_orchestration.avatars.records import Persona
from imgpipe_orchestration.avatars.store import IMAGES
from imgpipe_orchestration.billing.batches import Question
from imgpipe_orchestration.billing.calls import Answer, Buyer, PaidCall, Purchase, first_answer
from imgpipe_orchestration.errors import NotFound, NotWhole, Permanent, UnreadableAnswer
from imgpipe_orchestration.imaging.reading.parts import is_whole
from imgpipe_orchestration.partners.models import Choice
from imgpipe_orchestration.partners.openai import data_url
from imgpipe_orchestration.partners.usage import Priced, Usage, charged
from imgpipe_orchestration.telemetry.logs import logger
from imgpipe_orchestration.wiring.services import Services

log = logger(__name__)

BASE_SIZE, GRID_SIZE = "1024x1024", "2048x2048"
"""Pixels of the selfie, and of the grid of four."""
KEPT = "avatars-bought"  # in IMGPIPE_DATA_DIR; a file's name begins with the person's number


def buyer_of(persona: Persona) -> Buyer:
    """The buyer of a persona's calls, for the ledger."""
    return Buyer("avatars", f"task_{persona.task_id}/persona_{persona.id}", f"task_{persona.task_id}")


def draw(
    services: Services,
    persona: Persona,
    base: bytes | None,
    hand: dict[str, bytes],
    *,
    answered: Callable[[], None],
) -> Answer:
    """Buy a picture, or find it where it was bought before; the answer's `object_key` is its key in the bucket.

    Args:
        base: None for the selfie; the selfie (PNG) for the grid of the person who is on it.
        hand: gets the picture by its key, if it was bought just now.
        answered: is called when OpenAI has answered, so that the next call can begin while this picture is stored.

    Raises:
        PartnerRefused: content policy, or a 4xx.
        SpendingPaused: no quota, no budget, or a key or model that OpenAI does not accept.
        PartnerUnavailable, RateLimited, BackendUnavailable: it may work later.
        InBatch: it is not urgent, and in a batch that has not ended.
    """
    task: Literal["draw", "edit"]
    if base is None:
        kind, task, operation, endpoint = "base", "draw", "images", "images/generations"
        prompt, size, attempt = persona.image_prompt or "", BASE_SIZE, persona.base_tries
        inputs: list[str | bytes] = [prompt]
    else:
        kind, task, operation, endpoint = "grid", "edit", "edits", "images/edits"
        prompt = services.prompts["avatar"].question(style=persona.style, prompt=persona.image_prompt)
        size, attempt = GRID_SIZE, persona.grid_tries
        inputs = [prompt, base]
    options = {"size": size, "quality": "medium"}
    # Distinguishes this purchase from others with the same prompt: those for other people, and earlier pictures that
    # could not be used.
    identity = {"persona": persona.id, "edition": persona.edition, "try": attempt}
    buyer = buyer_of(persona)

    def call(choice: Choice) -> PaidCall:
        return PaidCall.of(choice.provider, operation, choice.model, inputs=inputs, parameters=options | identity)

    def buy(choice: Choice) -> Answer:
        def ask() -> Priced[bytes]:
            drawn = services.openai_images(choice.provider).draw(prompt, base, model=choice.model, **options)
            answered()
            return drawn

        wanted = call(choice)
        answer = services.ledger.buy(wanted, lambda: _stored(services, persona, wanted, kind, hand, ask), buyer=buyer)
        # Only now: an object store that restarts may lose the usage in the object's metadata.
        _forget(_safe(services, persona, wanted))
        return answer

    choices = services.models.choices(task)
    if not persona.urgent and choices and services.models.takes_batches(choices[0].provider):
        first = choices[0]
        artist = services.openai_images(first.provider)

        def read(asked: PaidCall, answer: dict[str, Any]) -> Purchase:
            stored = _stored(services, persona, asked, kind, hand, lambda: artist.batched_drawing(answer, asked.model))
            _forget(_safe(services, persona, asked))  # a batch can be read again
            return stored

        body = {"model": first.model, "prompt": prompt, "n": 1, **options}
        if base is not None:
            body["images"] = [{"image_url": data_url(base, "png")}]
        question = Question(call(first), body, buyer)
        # Then the picture is in the ledger when it is bought.
        services.half_price.fetch(f"{IMAGES.name}/{persona.id}", endpoint, lambda: [question], read)
    return first_answer(choices, buy, task=task)[1]


def _stored(
    services: Services,
    persona: Persona,
    call: PaidCall,
    kind: str,
    hand: dict[str, bytes],
    ask: Callable[[], Priced[bytes]],
) -> Purchase:
    """The picture in the bucket: one that was bought before, or what `ask` gets."""
    from imgpipe_orchestration.imaging.portraits.finishing import labelled, statement

    bucket, safe = services.avatars_bucket, _safe(services, persona, call)
    key = f"{persona_prefix(persona.task_id, persona.id)}bought/{kind}-{call.key[:32]}.png"
    head = bucket.head(key)
    if head is not None and "usage" in head.metadata:
        log.info("found a bought picture in the bucket", extra={"key": key})
        return Purchase(Usage(**json.loads(head.metadata["usage"])), object_key=key)
    kept = _kept(safe)
    if kept is None:
        drawn = ask()
        try:
            data = labelled(drawn.value, statement(drawn.usage.model, standin=drawn.usage.standin))
        except Permanent as error:
            with charged(drawn.usage):
                raise UnreadableAnswer(f"{call.provider} sent a picture that cannot be read: {error.public}") from error
        kept = drawn.usage, data
        _keep(safe, *kept)
    usage, data = kept
    bucket.put(
        key, data, content_type="image/png", cache_control="no-store", metadata={"usage": json.dumps(asdict(usage))}
    )
    hand[key] = data
    return Purchase(usage, object_key=key)


def _safe(services: Services, persona: Persona, call: PaidCall) -> Path:
    return services.settings.imgpipe_data_dir / KEPT / f"{persona.id}-{call.key}.png"


def _keep(safe: Path, usage: Usage, data: bytes) -> None:
    """Write the usage (JSON, in the first line) and the picture into a file, atomically."""
    part = safe.with_suffix(f".{os.getpid()}.part")
    try:
        safe.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(json.dumps(asdict(usage)).encode() + b"\n" + data)
        part.replace(safe)
    except OSError as error:
        # Go on without the file: it is needed only when storing the picture in the bucket fails, too.
        log.warning("a bought picture is not kept on this machine", extra={"file": safe.name, "error": str(error)})
        _forget(part)


def _forget(file: Path) -> None:
    """Delete a file if possible. One that stays does no harm: it is not read once the ledger has the answer."""
    with suppress(OSError):
        file.unlink()


def _kept(safe: Path) -> tuple[Usage, bytes] | None:
    try:
        line, _, data = safe.read_bytes().partition(b"\n")
        usage = Usage(**json.loads(line))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError):  # after a power cut the file may be empty; or another version wrote it
        log.warning("a bought picture on this machine cannot be read", extra={"file": safe.name})
        return None
    log.info("found a bought picture on this machine", extra={"file": safe.name})
    return usage, data


def bought(services: Services, key: str) -> bytes:
    """A bought picture.

    Raises:
        NotFound: somebody removed it from the bucket.
        NotWhole: the bucket gives a part of it, or something else.
    """
    try:
        data = services.avatars_bucket.get(key)
    except NotFound as error:
        raise NotFound(f"The bought picture {key} is gone from the bucket; try the persona again") from error
    if not is_whole(data):  # every bought picture is a PNG
        raise NotWhole("The object store does not give the whole of a bought picture", detail=key)
    return data
