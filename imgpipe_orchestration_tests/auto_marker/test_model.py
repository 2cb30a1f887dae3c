"""Pure decisions: partition keys, the toggle, what a customer's figures say."""

from __future__ import annotations

import pytest
from dagster import DynamicPartitionsDefinition
from dagster._core.definitions.partitions.utils.base import raise_error_on_invalid_partition_key_substring
from hypothesis import given
from hypothesis import strategies as st

from imgpipe_orchestration.auto_marker.model import (
    LONGEST_KEY,
    MOST_PROBLEMS,
    Figures,
    UnusableToggle,
    customer_of,
    partition_key,
    switched_on,
    tick_due,
)
from imgpipe_orchestration.errors import BadInput


@given(st.text(min_size=1, max_size=LONGEST_KEY // 12))
def test_any_customer_id_is_a_partition_key_and_back(customer: str) -> None:
    key = partition_key(customer)
    assert customer_of(key) == customer
    raise_error_on_invalid_partition_key_substring([key])
    assert not set(key) & set(",|\n\r\t\0")
    assert key == key.strip()


@pytest.mark.parametrize("plain", ["customer_123", "Kunde Müller", "a/b:c@d.e", "日本", "a..b", "k" * 1024])
def test_an_ordinary_customer_id_is_its_own_partition_key(plain: str) -> None:
    assert partition_key(plain) == plain


@pytest.mark.parametrize(("customer", "key"), [("a,b", "a%2Cb"), ("....", "..%2E%2E"), ("\n", "%0A"), ("%", "%25")])
def test_what_dagster_cannot_take_is_written_in_percents(customer: str, key: str) -> None:
    assert partition_key(customer) == key


@pytest.mark.parametrize("unusable", ["", "x" * (LONGEST_KEY + 1), "\U000e0001" * (LONGEST_KEY // 12 + 1)])
def test_no_or_an_endless_customer_id_is_refused(unusable: str) -> None:
    with pytest.raises(BadInput):
        partition_key(unusable)


@pytest.mark.parametrize(
    ("values", "on"), [([], True), ([True], True), ([1], True), ([None], True), ([False], False), ([0], False)]
)
def test_marking_is_on_unless_switched_off(values: list[object], on: bool) -> None:
    assert switched_on("c1", [{"auto_mark_cleaned": value} for value in values]) is on


def test_of_two_configs_one_that_says_off_is_enough() -> None:
    assert not switched_on("c1", [{"auto_mark_cleaned": True}, {"auto_mark_cleaned": False}])


@pytest.mark.parametrize("value", ["false", "true", 2, {}, []])
def test_a_toggle_that_is_neither_is_refused(value: object) -> None:
    with pytest.raises(UnusableToggle):
        switched_on("c1", [{"auto_mark_cleaned": value}])


def test_the_round_is_due_an_interval_after_the_last() -> None:
    assert [tick_due(age, 5) for age in (None, 0, 299.9, 300, -600)] == [True, False, False, True, True]


def test_figures_name_the_first_problems_and_count_all() -> None:
    figures = Figures("c1")
    for n in range(MOST_PROBLEMS + 5):
        figures.problem(n, "no")
    assert str(figures.trouble).startswith(f"{MOST_PROBLEMS + 5} cannot be marked: document 0: no;")
    assert str(figures.trouble).endswith("and 5 more")
    assert figures.broken
    figures.marked = 1
    assert not figures.broken


def test_the_partitions_are_those_that_other_code_locations_know() -> None:
    from imgpipe_orchestration.auto_marker.assets import CUSTOMERS

    assert isinstance(CUSTOMERS, DynamicPartitionsDefinition)
    assert CUSTOMERS.name == "customers"
