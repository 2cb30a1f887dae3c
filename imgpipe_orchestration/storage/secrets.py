"""Encrypts tenants' secrets with SECRET_KEY.

SECRET_KEY may be any text. HKDF (RFC 5869) derives the key under a label, so signatures and encryption never share one.
Fernet is AES-128-CBC with an HMAC, so an altered token is refused.
"""

import base64

from imgpipe_orchestration.errors import SettingsError

_LABEL = b"imgpipe: tenants' secrets at rest, version 1"


class Vault:
    """Encrypts and decrypts under one SECRET_KEY."""

    def __init__(self, secret_key: str) -> None:
        from cryptography.fernet import Fernet
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        if not secret_key:
            raise SettingsError("SECRET_KEY is empty: tenants' keys could not be encrypted")
        derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=_LABEL).derive(secret_key.encode())
        self._fernet = Fernet(base64.urlsafe_b64encode(derived))

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
                "the key again."
            ) from None
