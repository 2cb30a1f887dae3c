"""C2PA manifests: signed statements of what made a picture, and from which one.

Needs C2PA_CERTIFICATE, C2PA_PRIVATE_KEY and the extra `c2pa`. Every picture also carries an unsigned XMP statement.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from imgpipe_orchestration.errors import SettingsError
from imgpipe_orchestration.imaging.portraits.files import TRAINED
from imgpipe_orchestration.services import Services

_SELFIE = {"title": "selfie", "relationship": "parentOf", "instance_id": "selfie", "label": "selfie"}
_DRAWN = [{"action": "c2pa.created", "digitalSourceType": TRAINED}]
_DRAWN_FROM_PARENT: list[dict[str, Any]] = [
    {"action": "c2pa.opened", "parameters": {"ingredientIds": [_SELFIE["label"]]}},
    {"action": "c2pa.edited", "digitalSourceType": TRAINED, "description": "Four more pictures drawn in a grid."},
    {"action": "c2pa.cropped", "description": "Cut from the grid."},
]


def signed(services: Services, png: bytes, title: str, *, parent: bytes | None = None) -> bytes:
    """The PNG with a manifest, or as it is when no certificate is configured.

    Args:
        parent: the published selfie, from which the model drew the grid that this picture was cut from.

    Raises:
        SettingsError: the extra is missing, or the certificate and key cannot be used.
    """
    settings = services.settings
    if not settings.c2pa_certificate:
        return png
    try:
        import c2pa
    except ImportError as error:
        raise SettingsError(
            "C2PA_CERTIFICATE is set, but c2pa-python is not installed;"
            " in the project's folder: pip install -c constraints.txt '.[c2pa]'",
            field="C2PA_CERTIFICATE",
        ) from error
    manifest = {
        "claim_generator_info": [{"name": "imgpipe"}],
        "title": title,
        "format": "image/png",
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": _DRAWN if parent is None else _DRAWN_FROM_PARENT}}
        ],
    }
    try:
        chain = Path(settings.c2pa_certificate).read_bytes()
        key = Path(settings.c2pa_private_key).read_bytes()
        info = c2pa.C2paSignerInfo(_algorithm(key).encode(), chain, key, settings.c2pa_timestamp_url.encode() or None)
        destination = io.BytesIO()
        with c2pa.Signer.from_info(info) as signer, c2pa.Builder(json.dumps(manifest)) as builder:
            if parent is not None:
                builder.add_ingredient(json.dumps(_SELFIE), "image/png", io.BytesIO(parent))
            builder.sign(signer, "image/png", io.BytesIO(png), destination)
    except (c2pa.C2paError, OSError, ValueError, UnsupportedAlgorithm) as error:
        raise SettingsError(
            f"C2PA_CERTIFICATE and C2PA_PRIVATE_KEY cannot sign: {error}", field="C2PA_CERTIFICATE"
        ) from error
    return destination.getvalue()


def _algorithm(key: bytes) -> str:
    """C2PA's name of the algorithm that signs with this PEM key.

    Raises:
        ValueError: it is no key, or of a kind that C2PA does not take.
    """
    read = load_pem_private_key(key, None)
    if isinstance(read, ec.EllipticCurvePrivateKey):
        return {256: "es256", 384: "es384", 521: "es512"}[read.key_size]
    if isinstance(read, rsa.RSAPrivateKey):
        return "ps256"
    if isinstance(read, ed25519.Ed25519PrivateKey):
        return "ed25519"
    raise ValueError("C2PA takes keys of elliptic curves, RSA and Ed25519")
