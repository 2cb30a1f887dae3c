"""Checks of the settings."""

from __future__ import annotations

from urllib.parse import urlsplit

from imgpipe_orchestration.cli.diagnosis.check import Bad, Note
from imgpipe_orchestration.operations.startup import check_settings
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.settings import DEVELOPMENT_SECRET, misspelled
from imgpipe_orchestration.web.origins import is_loopback

_OF_CLIENTS = ("public_base_url", "s3_public_endpoint", "s3_upload_endpoint")
"""Settings of which clients get addresses."""


def formats(_: Services) -> str:
    from PIL import features

    from imgpipe_orchestration.imaging.libvips import libvips
    from imgpipe_orchestration.imaging.reading.readers import READ_HERE, enable_heic

    if not features.check("avif"):
        raise Bad("Pillow was replaced by one without AVIF")
    enable_heic()
    if not libvips().type_find("VipsForeignLoad", "svgload_buffer"):
        raise Bad("libvips lacks librsvg, so SVG logos cannot be drawn")
    return f"{READ_HERE}, and SVG logos"


def settings(services: Services) -> str:
    check_settings(services.settings)
    if said := misspelled():
        raise Note("; ".join(said), "Fix the name and start again, or remove the variable.")
    return "all valid"


def addresses(services: Services) -> str:
    settings = services.settings
    of_clients = {name.upper(): getattr(settings, name) for name in _OF_CLIENTS}
    inside = [name for name, url in of_clients.items() if is_loopback(urlsplit(url).hostname or "")]
    if settings.production and inside:
        raise Note(f"clients get addresses that only work on this machine: {', '.join(inside)}")
    return ", ".join(sorted({url for url in of_clients.values() if url}))


def sign_in(services: Services) -> str:
    settings = services.settings
    if settings.oidc_issuer:
        from imgpipe_orchestration.identity.oidc import Provider

        Provider(settings).begin("/")
        return f"people sign in at {settings.oidc_issuer}"
    if settings.production:
        said = "everybody signs in with ADMIN_API_KEY: all are admins, and the audit cannot tell them apart"
        raise Note(said, "Set OIDC_ISSUER, OIDC_CLIENT_ID, OIDC_CLIENT_SECRET and OIDC_ROLES.")
    return "not needed in development"


def keys(services: Services) -> str:
    names = [name.upper() for name, value in services.settings.model_dump().items() if value == DEVELOPMENT_SECRET]
    if names:
        raise Note(f"development keys in use: {', '.join(names)}")
    return "all set"
