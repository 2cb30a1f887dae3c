"""Pictures bought from OpenAI: each at most once, whatever dies between the answer and the commit.

A bought picture is first put into a file on this machine, then into the bucket, then into the ledger. A worker that
takes over finds it in one of the three before it asks again; and a bucket that is away is noticed before money is
spent, not after.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from imgpipe_orchestration.avatars.model import persona_prefix
from imgpipe_orchestration.avatars.results import Persona
from imgpipe_orchestration.errors import NotFound, PartnerUnavailable, Permanent, SpendingPaused
from imgpipe_orchestration.logs import logger
from imgpipe_orchestration.partners.openai import Drawn, OpenAIClient
from imgpipe_orchestration.partners.usage import Usage
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.ledger import Answer, Buyer, PaidCall, Purchase

log = logger(__name__)

GRID_PROMPT = (
    "A 2x2 grid of four separate square photographs of the very same person as in the reference picture: same face,"
    " same hair, same age. Four different poses and expressions, places and clothes that suit this person. Each cell"
    " shows head and shoulders, fills its quarter and is divided from the others by a thin straight white line."
    " No text, no frame around the grid. Style: {style}. The person: {prompt}"
)


def buyer_of(persona: Persona) -> Buyer:
    """For whom a call is paid."""
    return Buyer("avatars", f"task_{persona.task_id}/persona_{persona.id}", f"task_{persona.task_id}")


def draw_base(services: Services, persona: Persona, hand: dict[str, bytes], *, answered: Callable[[], None]) -> Answer:
    """Buy the selfie; the answer's `object_key` is where it lies, and `hand` gets it if it was bought just now.

    Args:
        answered: called when OpenAI is done with it: the next may ask while this picture is put away.

    Raises:
        PartnerRefused: content policy, or a 4xx.
        SpendingPaused: no quota, no budget, or a key or model that OpenAI does not accept.
        PartnerUnavailable, RateLimited, BackendUnavailable.
    """
    client, settings, prompt = _client(services), services.settings, persona.image_prompt or ""
    model, options = settings.openai_image_model, _options(services, settings.avatar_base_size)
    call = PaidCall.of(
        "openai", "images", model, inputs=[prompt], parameters={**options, **_identity(persona, persona.base_tries)}
    )

    def ask() -> Drawn:
        drawn = client.generate_image(prompt, model=model, **options)
        answered()
        return drawn

    return _buy(services, persona, call, "base", hand, ask)


def draw_grid(
    services: Services, persona: Persona, base: bytes, hand: dict[str, bytes], *, answered: Callable[[], None]
) -> Answer:
    """Buy the grid of the person on the selfie; else as `draw_base`."""
    client, settings = _client(services), services.settings
    model = settings.openai_image_edit_model
    options = _options(services, settings.avatar_grid_size)
    prompt = GRID_PROMPT.format(style=persona.style, prompt=persona.image_prompt)
    call = PaidCall.of(
        "openai",
        "edits",
        model,
        inputs=[prompt, base],
        parameters={**options, **_identity(persona, persona.grid_tries)},
    )

    def ask() -> Drawn:
        drawn = client.edit_image(base, prompt, model=model, **options)
        answered()
        return drawn

    return _buy(services, persona, call, "grid", hand, ask)


def _client(services: Services) -> OpenAIClient:
    if services.openai_images is None:
        raise SpendingPaused("OPENAI_API_KEY is not set, and nobody else draws: the pictures wait until it is")
    return services.openai_images


def _options(services: Services, size: str) -> dict[str, str]:
    return {"size": size, "quality": services.settings.avatar_image_quality}


def _identity(persona: Persona, attempt: int) -> dict[str, int]:
    """What tells this purchase from the same words for somebody else, and from a picture that was no good."""
    return {"persona": persona.id, "edition": persona.edition, "try": attempt}


def _buy(
    services: Services, persona: Persona, call: PaidCall, kind: str, hand: dict[str, bytes], ask: Callable[[], Drawn]
) -> Answer:
    from imgpipe_orchestration.imaging.portraits.files import labelled, statement

    bucket = services.avatars_bucket
    key = f"{persona_prefix(persona.task_id, persona.id)}bought/{kind}-{call.key[:32]}.png"
    safe = services.settings.imgpipe_data_dir / "avatars-bought" / f"{call.key}.png"

    def purchase() -> Purchase:
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
                raise PartnerUnavailable(f"OpenAI sent a picture that cannot be read: {error.public}") from error
            kept = drawn.usage, data
            _keep(safe, *kept)
        usage, data = kept
        bucket.put(
            key, data, content_type="image/png", cache_control="no-store", metadata={"usage": json.dumps(asdict(usage))}
        )
        hand[key] = data
        return Purchase(usage, object_key=key)

    answer = services.ledger.buy(call, purchase, buyer=buyer_of(persona))
    # Not before: an object store that restarts meanwhile may forget the usage, and with it that this was bought.
    _forget(safe)
    return answer


def _keep(safe: Path, usage: Usage, data: bytes) -> None:
    """Usage in the first line, then the picture; whole or not at all."""
    part = safe.with_suffix(f".{os.getpid()}.part")
    try:
        safe.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(json.dumps(asdict(usage)).encode() + b"\n" + data)
        part.replace(safe)
    except OSError as error:
        # The file is there for the case that the bucket fails next, which it seldom does: paid for is paid for.
        log.warning("a bought picture is not kept on this machine", extra={"file": safe.name, "error": str(error)})
        _forget(part)


def _forget(file: Path) -> None:
    """A file that stays does no harm: nobody looks for it once the journal has the answer."""
    with suppress(OSError):
        file.unlink()


def _kept(safe: Path) -> tuple[Usage, bytes] | None:
    if not safe.is_file():
        return None
    line, _, data = safe.read_bytes().partition(b"\n")
    try:
        usage = Usage(**json.loads(line))
    except ValueError:  # a machine that lost its power may have kept the name and not what is in it
        log.warning("a bought picture on this machine is damaged", extra={"file": safe.name})
        return None
    log.info("found a bought picture on this machine", extra={"file": safe.name})
    return usage, data


def bought(services: Services, key: str) -> bytes:
    """A bought picture.

    Raises:
        NotFound: somebody removed it from the bucket.
    """
    try:
        return services.avatars_bucket.get(key)
    except NotFound as error:
        raise NotFound(f"The bought picture {key} is gone from the bucket; try the persona again") from error
