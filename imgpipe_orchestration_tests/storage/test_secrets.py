"""Secrets at rest."""

import pytest

from imgpipe_orchestration.errors import SettingsError
from imgpipe_orchestration.storage.secrets import Vault


def test_another_secret_key_or_an_altered_token_is_named_as_the_reason() -> None:
    token = Vault("one").lock("customer-token")
    for vault, given in ((Vault("other"), token), (Vault("one"), token[:-4] + "AAAA")):
        with pytest.raises(SettingsError) as refused:
            vault.unlock(given)
        assert "SECRET_KEY" in refused.value.public
        assert "customer-token" not in str(refused.value)


def test_an_empty_secret_key_locks_nothing() -> None:
    with pytest.raises(SettingsError):
        Vault("")
