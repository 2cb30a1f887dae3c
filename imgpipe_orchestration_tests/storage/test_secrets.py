"""Secrets at rest."""

import pytest

from imgpipe_orchestration.errors import SettingsError
from imgpipe_orchestration.storage.secrets import Vault


def test_what_is_locked_can_be_unlocked_and_does_not_show_the_secret() -> None:
    vault = Vault("a long enough secret")
    tokens = {vault.lock("customer-token"), vault.lock("customer-token")}
    assert len(tokens) == 2
    assert not [token for token in tokens if "customer" in token]
    assert {Vault("a long enough secret").unlock(token) for token in tokens} == {"customer-token"}


def test_another_secret_key_or_an_altered_token_is_named_as_the_reason() -> None:
    token = Vault("one").lock("customer-token")
    for vault, given in ((Vault("other"), token), (Vault("one"), token[:-4] + "AAAA")):
        with pytest.raises(SettingsError) as refused:
            vault.unlock(given)
        assert refused.value.field == "SECRET_KEY"
        assert "customer-token" not in str(refused.value)


def test_an_empty_secret_key_locks_nothing() -> None:
    with pytest.raises(SettingsError):
        Vault("")
