"""Checks of the partners."""

from __future__ import annotations

from contextlib import closing
from typing import get_args

import requests

from imgpipe_orchestration.billing import budgets, spending
from imgpipe_orchestration.cli.diagnosis.check import TIMEOUT_SECONDS, Bad, Note
from imgpipe_orchestration.partners.models import Provider, TaskName
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.rows import transaction


def openai(services: Services) -> str:
    asked = _speaking(services, "openai-responses", "openai-chat")
    if not asked:
        raise Note("not configured: images get measured fields only, avatars cannot be made")
    from imgpipe_orchestration.partners.openai import OpenAIClient
    from imgpipe_orchestration.partners.retry import RetryPolicy

    used = {choice for task in get_args(TaskName) for choice in services.models.choices(task)}
    for name, provider in asked.items():
        # The same client as in the runs: a proxy or certificate that fails there fails here too.
        key, policy = services.models.key(name) or "none", RetryPolicy(attempts=1)
        client = OpenAIClient(key, base_url=provider.base_url, timeout=TIMEOUT_SECONDS, policy=policy)
        with closing(client):
            there = client.models()
        for model in sorted(choice.model for choice in used if choice.provider == name):
            if there and (model not in there or there[model]):
                seen = f"ends on {there[model]}" if model in there else "is not among those on offer"
                raise Note(f"model {model} {seen}", f"Set another one: {_where(services, model)}.")
    return _said(asked, "accepts the key")


def _speaking(services: Services, *dialects: str) -> dict[str, Provider]:
    return {name: one for name, one in services.models.providers.items() if one.dialect in dialects}


def _where(services: Services, model: str) -> str:
    """The setting that names a model; moderation's is named by the file only."""
    names = ("openai_vision_model", "openai_embedding_model", "openai_image_model")
    named = (name.upper() for name in names if getattr(services.settings, name) == model)
    return "MODELS_FILE" if services.settings.models_file else next(named, "MODELS_FILE")


def _said(providers: dict[str, Provider], what: str) -> str:
    return "; ".join(f"{provider.base_url} {what}" for provider in providers.values())


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
    asked = _speaking(services, "google-vision")
    if not asked:
        raise Note("not configured: images get no objects and no text")
    for name, provider in asked.items():
        # An empty batch is refused as invalid (400) when the key is good, and costs nothing.
        url, headers = f"{provider.base_url}/v1/images:annotate", {"X-Goog-Api-Key": services.models.key(name)}
        answer = requests.post(url, json={"requests": []}, headers=headers, timeout=TIMEOUT_SECONDS)
        if answer.status_code not in {200, 400} or "API_KEY_INVALID" in answer.text:
            raise Bad(f"{provider.base_url} answered {answer.status_code}")
    return _said(asked, "accepts the key")


def flowise(services: Services) -> str:
    asked = _speaking(services, "flowise")
    if not asked:
        raise Note("not configured: avatars cannot be made")
    for provider in asked.values():
        with requests.get(provider.base_url, timeout=TIMEOUT_SECONDS, stream=True) as answer:
            if answer.status_code >= 500:
                raise Bad(f"{provider.base_url} answered {answer.status_code}")
    return _said(asked, "answers")
