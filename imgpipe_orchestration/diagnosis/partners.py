"""Checks of the partners, and of the model that is used in place of one."""

from __future__ import annotations

import requests

from imgpipe_orchestration.billing import budgets, spending
from imgpipe_orchestration.diagnosis.check import TIMEOUT_SECONDS, Bad, Note
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.rows import transaction


def openai(services: Services) -> str:
    settings = services.settings
    if not settings.openai_api_key:
        raise Note("not configured: images get measured fields only, avatars cannot be made")
    from imgpipe_orchestration.partners.openai import OpenAIClient
    from imgpipe_orchestration.partners.retry import RetryPolicy

    # The same client as in the runs: a proxy or certificate that fails there fails here too.
    client = OpenAIClient(
        settings.openai_api_key,
        base_url=settings.openai_base_url,
        timeout=TIMEOUT_SECONDS,
        policy=RetryPolicy(attempts=1),
    )
    try:
        there = client.models()
    finally:
        client.close()
    for name in ("openai_vision_model", "openai_embedding_model", "openai_image_model"):
        model = getattr(settings, name)
        if there.get(model):
            raise Note(f"model {model} ends on {there[model]}", f"Set another one: {name.upper()}.")
        if there and model not in there:
            raise Note(f"model {model} is not among those on offer", f"Set another one: {name.upper()}.")
    return f"{settings.openai_base_url} accepts the key"


def paid_calls(services: Services) -> str:
    with transaction(services.engine) as connection:
        pauses = spending.pauses(connection)
        stands = budgets.standings(connection, services.settings.daily_budget_usd)
        spent = sum(line.cost_usd for line in spending.today(connection, by=[]))
    if pauses:
        waits = [f"{one.provider} is not asked until {one.until:%H:%M} UTC: {one.reason}" for one in pauses]
        raise Note("; ".join(waits), "Once that is fixed, `imgpipe requeue PIPELINE` ends the pauses.")
    if used_up := [f"{one.title}, {one.limit_usd:.2f} USD" for one in stands if one.used_up]:
        raise Note(f"used up: the {'; the '.join(used_up)}", "Raise it, or wait for its next period (UTC).")
    return f"{spent:.2f} USD today, and no provider is paused"


def google_vision(services: Services) -> str:
    settings = services.settings
    if not settings.google_vision_api_key:
        raise Note("not configured: images get no labels, objects, text or faces")
    # An empty batch is refused as invalid (400) when the key is good, and costs nothing.
    url = f"{settings.google_vision_endpoint}/v1/images:annotate"
    headers = {"X-Goog-Api-Key": settings.google_vision_api_key}
    answer = requests.post(url, json={"requests": []}, headers=headers, timeout=TIMEOUT_SECONDS)
    if answer.status_code not in {200, 400} or "API_KEY_INVALID" in answer.text:
        raise Bad(f"{settings.google_vision_endpoint} answered {answer.status_code}")
    return f"{settings.google_vision_endpoint} accepts the key"


def flowise(services: Services) -> str:
    settings = services.settings
    if not settings.flowise_base_url:
        raise Note("not configured: avatars cannot be made")
    with requests.get(settings.flowise_base_url, timeout=TIMEOUT_SECONDS, stream=True) as answer:
        if answer.status_code >= 500:
            raise Bad(f"{settings.flowise_base_url} answered {answer.status_code}")
    return f"{settings.flowise_base_url} answers"


def background_model(services: Services) -> str:
    from imgpipe_orchestration.imaging.background_model import load_model

    name = services.settings.background_model
    load_model(name)
    return f"{name} can be used"
