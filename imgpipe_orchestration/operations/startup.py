"""Checks of the settings at the start."""

import difflib
import os
from collections.abc import Callable
from pathlib import Path

from imgpipe_orchestration.billing.prices import parse_prices
from imgpipe_orchestration.errors import SettingsError
from imgpipe_orchestration.partners.models import Models
from imgpipe_orchestration.partners.ssrf import Guard
from imgpipe_orchestration.prompts.library import Library
from imgpipe_orchestration.settings import Settings


def check_settings(settings: Settings) -> None:
    """Check the settings that `Settings` does not parse itself, at the start and not when they are first needed.

    Raises:
        SettingsError: some cannot be used; names them all.
    """
    checks: tuple[Callable[[], object], ...] = (
        lambda: parse_prices(settings.model_prices),
        lambda: Models(settings),
        lambda: Library(settings),
        lambda: Guard.parse(settings.allowed_private_hosts),
    )
    faults: list[str] = []
    for check in checks:
        try:
            check()
        except SettingsError as fault:
            faults.append(fault.public)
    if settings.log_file and not (folder := Path(settings.log_file).absolute().parent).is_dir():
        faults.append(f"LOG_FILE: there is no folder {folder}")
    if faults:
        raise SettingsError("; ".join(faults))


def misspelled() -> list[str]:
    """Messages about environment variables that nothing reads and that nearly have a setting's name."""
    known = {name.upper() for name in Settings.model_fields}
    said = []
    for name in sorted(set(os.environ) - known):
        if close := difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.9):
            said.append(f"{name} is not a setting; did you mean {close[0]}?")
    return said
