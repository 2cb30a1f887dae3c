"""Buys pictures from OpenAI, each at most once, even if a worker dies between answer and commit.

A bought picture goes into a local file, then the bucket, then its key into the ledger. Whoever takes over looks in all
three before asking again. If the bucket is away, nothing is bought.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from imgpipe_orchestration.avatars.model import persona_prefix
from imgpipe_orchestration.avatars.results import Persona
from imgpipe_orchestration.avatars.store import IMAGES
from imgpipe_orchestration.billing.batches import Question
from imgpipe_orchestration.billing.calls import Answer, Buyer, PaidCall, Purchase, first_answer
from imgpipe_orchestration.errors import NotFound, NotWhole, Permanent, UnreadableAnswer
from imgpipe_orchestration.imaging.reading.parts import is_whole
from imgpipe_orchestration.partners.models import Choice
from imgpipe_orchestration.partners.openai import Drawn, data_url
from imgpipe_orchestration.partners.usage import Usage, charged
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.telemetry.logs import logger

log = logger(__name__)

BASE_SIZE, GRID_SIZE = "1024x1024", "2048x2048"
"""Pixels of the selfie, and of the grid of four."""


def buyer_of(persona: Persona) -> Buyer:
    """The buyer of a persona's calls, for the ledger."""
    return Buyer("avatars", f"task_{persona.task_id}/persona_{persona.id}", f"task_{persona.task_id}")


def draw_base(services: Services, persona: Persona, hand: dict[str, bytes], *, answered: Callable[[], None]) -> Answer:
    """Buy the selfie, or find it where it was bought before; the answer's `object_key` is its key in the bucket.

    Args:
        hand: gets the picture by its key, if it was bought just now.
        answered: is called when OpenAI has answered, so that the next call can begin while this picture is stored.

    Raises:
        PartnerRefused: content policy, or a 4xx.
        SpendingPaused: no quota, no budget, or a key or model that OpenAI does not accept.
        PartnerUnavailable, RateLimited, BackendUnavailable: it may work later.
        InBatch: it is not urgent, and in a batch that has not ended.
    """
    prompt, options = persona.image_prompt or "", _options(services, BASE_SIZE)
    parameters = {**options, **_identity(persona, persona.base_tries)}

    def call(choice: Choice) -> PaidCall:
        return PaidCall.of(choice.provider, "images", choice.model, inputs=[prompt], parameters=parameters)

    def buy(choice: Choice) -> Answer:
        def ask() -> Drawn:
            drawn = services.openai_images(choice.provider).generate_image(prompt, model=choice.model, **options)
            answered()
            return drawn

        return _buy(services, persona, call(choice), "base", hand, ask)

    choices = services.models.choices("draw")
    if not persona.urgent:
        _fetch_at_half_price(services, persona, choices, call, "base", hand, {"prompt": prompt, "n": 1, **options})
    return first_answer(choices, buy, task="draw")[1]


def draw_grid(
    services: Services, persona: Persona, base: bytes, hand: dict[str, bytes], *, answered: Callable[[], None]
) -> Answer:
    """Buy the grid of the person on the selfie `base` (PNG); otherwise as `draw_base`."""
    options = _options(services, GRID_SIZE)
    parameters = {**options, **_identity(persona, persona.grid_tries)}
    prompt = services.prompts["avatar"].question(style=persona.style, prompt=persona.image_prompt)

    def call(choice: Choice) -> PaidCall:
        return PaidCall.of(choice.provider, "edits", choice.model, inputs=[prompt, base], parameters=parameters)

    def buy(choice: Choice) -> Answer:
        def ask() -> Drawn:
            drawn = services.openai_images(choice.provider).edit_image(base, prompt, model=choice.model, **options)
            answered()
            return drawn

        return _buy(services, persona, call(choice), "grid", hand, ask)

    choices = services.models.choices("edit")
    if not persona.urgent:
        body = {"images": [{"image_url": data_url(base, "png")}], "prompt": prompt, "n": 1, **options}
        _fetch_at_half_price(services, persona, choices, call, "grid", hand, body)
    return first_answer(choices, buy, task="edit")[1]


def _fetch_at_half_price(
    services: Services,
    persona: Persona,
    choices: Sequence[Choice],
    call: Callable[[Choice], PaidCall],
    kind: str,
    hand: dict[str, bytes],
    body: dict[str, Any],
) -> None:
    """Have the picture in the ledger when it is bought.

    Raises:
        InBatch: it is not there yet.
    """
    if not choices or not services.models.takes_batches(choices[0].provider):
        return
    choice, buyer = choices[0], buyer_of(persona)
    wanted = call(choice)

    def read(answer: dict[str, Any]) -> Purchase:
        client = services.openai_images(choice.provider)
        return _stored(services, persona, wanted, kind, hand, lambda: client.batched_drawing(answer, choice.model))

    endpoint = "images/generations" if kind == "base" else "images/edits"
    question = Question(wanted, {"model": choice.model, **body}, buyer)
    services.half_price.fetch(f"{IMAGES.name}/{persona.id}", endpoint, lambda: [question], read)


def _options(services: Services, size: str) -> dict[str, str]:
    return {"size": size, "quality": "medium"}


def _identity(persona: Persona, attempt: int) -> dict[str, int]:
    """Parameters that distinguish this purchase from others with the same prompt: those for other people, and earlier
    pictures that could not be used."""
    return {"persona": persona.id, "edition": persona.edition, "try": attempt}


def _buy(
    services: Services, persona: Persona, call: PaidCall, kind: str, hand: dict[str, bytes], ask: Callable[[], Drawn]
) -> Answer:
    def purchase() -> Purchase:
        return _stored(services, persona, call, kind, hand, ask)

    answer = services.ledger.buy(call, purchase, buyer=buyer_of(persona))
    # Only now: an object store that restarts may lose the usage in the object's metadata.
    _forget(_safe(services, call))
    return answer


def _stored(
    services: Services, persona: Persona, call: PaidCall, kind: str, hand: dict[str, bytes], ask: Callable[[], Drawn]
) -> Purchase:
    """The picture in the bucket: one that was bought before, or what `ask` gets."""
    from imgpipe_orchestration.imaging.portraits.finishing import labelled, statement

    bucket, safe = services.avatars_bucket, _safe(services, call)
    key = f"{persona_prefix(persona.task_id, persona.id)}bought/{kind}-{call.key[:32]}.png"
    head = bucket.head(key)
    if head is not None and "usage" in head.metadata:
        log.info("found a bought picture in the bucket", extra={"key": key})
        return Purchase(Usage(**json.loads(head.metadata["usage"])), object_key=key)
    kept = _kept(safe)
    if kept is None:
        drawn = ask()
        try:
            data = labelled(drawn.image, statement(drawn.usage.model, standin=drawn.usage.standin))
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


def _safe(services: Services, call: PaidCall) -> Path:
    return services.settings.imgpipe_data_dir / "avatars-bought" / f"{call.key}.png"


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
