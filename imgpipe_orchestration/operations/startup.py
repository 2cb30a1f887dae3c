"""Checks of the settings at the start."""

import difflib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from imgpipe_orchestration.billing.prices import parse_prices
from imgpipe_orchestration.errors import SettingsError
from imgpipe_orchestration.partners.models import Models
from imgpipe_orchestration.partners.ssrf import Guard
from imgpipe_orchestration.prompts.library import Library
from imgpipe_orchestration.settings import Settings

REMOVED = {
    "pictures carry an unsigned statement": ("C2PA_CERTIFICATE", "C2PA_PRIVATE_KEY", "C2PA_TIMESTAMP_URL"),
    "it is in deploy/dagster.yaml": ("CELERY_RESULT_BACKEND", "DAGSTER_LOGS_BUCKET"),
    "a logo on an uneven background keeps it": ("BACKGROUND_MODEL",),
    "the steps of listings are in the code": ("LISTINGS_STEPS", "LISTINGS_WATERMARK_TEXT"),
    "the folder is `debug-images` in IMGPIPE_DATA_DIR": ("DEBUG_IMAGE_DIR",),
    "it is a constant": ("ANALYSIS_PUBLIC_FIELDS", "SERVE_CACHE_BYTES", "UPLOADS_PER_MINUTE"),
    "it is medium, of 5 at a time": ("AVATAR_IMAGE_QUALITY", "AVATAR_PARALLEL_IMAGES"),
    "it is 8 at a time, and an hour": ("VISION_PARALLEL_CALLS", "VISION_TIMEOUT_SECONDS"),
}
"""What takes the place of former settings (docs/adr/0012-fewer-settings.md)."""


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
    faults = []
    for check in checks:
        try:
            check()
        except SettingsError as fault:
            faults.append(fault)
    if settings.log_file and not (folder := Path(settings.log_file).absolute().parent).is_dir():
        faults.append(SettingsError(f"LOG_FILE: there is no folder {folder}", field="LOG_FILE"))
    if faults:
        raise SettingsError("; ".join(fault.public for fault in faults), field=faults[0].field)


def misspelled(environ: Mapping[str, str] | None = None) -> list[str]:
    """Messages about environment variables that nothing reads: former settings, and nearly a setting's name."""
    known = {name.upper() for name in Settings.model_fields}
    unknown = sorted({*(os.environ if environ is None else environ)} - known)
    said = [f"{one} is no setting any more: {why}" for why, ones in REMOVED.items() for one in ones if one in unknown]
    for name in unknown:
        if close := difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.9):
            said.append(f"{name} is no setting; {close[0]} is one")
    return said
