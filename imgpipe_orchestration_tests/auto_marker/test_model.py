"""Pure decisions: partition keys, the toggle, what a customer's figures say."""

import pytest
from dagster._core.definitions.partitions.utils.base import raise_error_on_invalid_partition_key_substring
from hypothesis import given
from hypothesis import strategies as st

from imgpipe_orchestration.auto_marker.model import (
    LONGEST_KEY,
    customer_of,
    partition_key,
)
from imgpipe_orchestration.errors import BadInput


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=LONGEST_KEY // 12))
def test_any_customer_id_is_a_partition_key_and_back(customer: str) -> None:
    key = partition_key(customer)
    assert customer_of(key) == customer
    raise_error_on_invalid_partition_key_substring([key])
    assert not set(key) & set(",|\n\r\t\0")
    assert key == key.strip()


PLAIN = ["customer_123", "Kunde Müller", "a/b:c@d.e", "日本", "a..b", "k" * 1024]
PERCENTS = [("a,b", "a%2Cb"), ("....", "..%2E%2E"), ("\n", "%0A"), ("%", "%25")]


@pytest.mark.parametrize(("customer", "key"), [*zip(PLAIN, PLAIN, strict=True), *PERCENTS])
def test_only_what_dagster_cannot_take_is_written_in_percents(customer: str, key: str) -> None:
    assert partition_key(customer) == key


@pytest.mark.parametrize("unusable", ["", "x" * (LONGEST_KEY + 1), "\U000e0001" * (LONGEST_KEY // 12 + 1), "a\0b"])
def test_a_customer_id_that_is_no_key_is_refused(unusable: str) -> None:
    with pytest.raises(BadInput):
        partition_key(unusable)
