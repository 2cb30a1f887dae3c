"""Checks of the settings at the start."""

from __future__ import annotations

from pathlib import Path

from imgpipe_orchestration.errors import SettingsError
from imgpipe_orchestration.partners.models import Models
from imgpipe_orchestration.prompts.library import Library
from imgpipe_orchestration.settings import Settings


def check_settings(settings: Settings) -> None:
    """Check the settings that `Settings` does not parse itself, at the start and not when they are first needed.

    Raises:
        SettingsError: some cannot be used; names them all.
    """
    faults = []
    for check in (_prices, Models, Library, _hosts, _files):
        try:
            check(settings)
        except SettingsError as fault:
            faults.append(fault)
    if faults:
        raise SettingsError("; ".join(fault.public for fault in faults), field=faults[0].field)


def _prices(settings: Settings) -> None:
    from imgpipe_orchestration.billing.prices import parse_prices

    parse_prices(settings.model_prices)


def _hosts(settings: Settings) -> None:
    from imgpipe_orchestration.partners.ssrf import AllowList

    AllowList.parse(settings.allowed_private_hosts)


def _files(settings: Settings) -> None:
    if settings.log_file and not (folder := Path(settings.log_file).absolute().parent).is_dir():
        raise SettingsError(f"LOG_FILE: there is no folder {folder}", field="LOG_FILE")
