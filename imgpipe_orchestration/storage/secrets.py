"""Encrypts tenants' secrets with SECRET_KEY.

SECRET_KEY may be any text. HKDF (RFC 5869) derives the key under a label, so signatures and encryption never share one.
Fernet is AES-128-CBC with an HMAC, so an altered token is refused.
"""

from __future__ import annotations

import base64
from functools import cached_property
from typing import TYPE_CHECKING

from imgpipe_orchestration.errors import SettingsError

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

_LABEL = b"imgpipe: tenants' secrets at rest, version 1"


class Vault:
    """Encrypts and decrypts under one SECRET_KEY."""

    def __init__(self, secret_key: str) -> None:
        if not secret_key:
            raise SettingsError("SECRET_KEY is empty: tenants' keys could not be encrypted", field="SECRET_KEY")
        self._secret_key = secret_key

    @cached_property
    def _fernet(self) -> Fernet:
        from cryptography.fernet import Fernet
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=_LABEL).derive(self._secret_key.encode())
        return Fernet(base64.urlsafe_b64encode(derived))

    def lock(self, secret: str) -> str:
        """The secret as a token for a text column; equal secrets give different tokens."""
        return self._fernet.encrypt(secret.encode()).decode()

    def unlock(self, token: str) -> str:
        """The secret in a token.

        Raises:
            SettingsError: the token was made under another SECRET_KEY, or was altered.
        """
        from cryptography.fernet import InvalidToken

        try:
            return self._fernet.decrypt(token.encode()).decode()
        except InvalidToken:
            raise SettingsError(
                "A stored key cannot be read: SECRET_KEY is not the one it was stored under. Restore it, or store "
                "the key again.",
                field="SECRET_KEY",
            ) from None
