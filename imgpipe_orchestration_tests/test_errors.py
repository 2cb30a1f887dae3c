"""The error tree: what each says of retries, statuses and who should hear of it."""

from __future__ import annotations

import re

import pytest

from imgpipe_orchestration import errors
from imgpipe_orchestration.errors import BadInput, ImgpipeError, LeaseLost, Permanent, RateLimited, Retryable


def tree(root: type[ImgpipeError] = ImgpipeError) -> list[type[ImgpipeError]]:
    """Every error this module defines."""
    found = [root]
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            found += tree(child)
    return found


EVERY = tree()
LEAVES = [error for error in EVERY if error not in (ImgpipeError, Retryable, Permanent)]


def test_the_drawing_in_the_docstring_is_the_tree() -> None:
    drawn = re.findall(r"^ *[│├└─ ]*(?:── )?([A-Z][A-Za-z]+)(?: {2,}|$)", errors.__doc__ or "", re.MULTILINE)
    assert drawn == [error.__name__ for error in EVERY]


def test_the_drawing_names_each_status() -> None:
    for name, status in re.findall(r"── ([A-Z][A-Za-z]+) .*?(\d{3})$", errors.__doc__ or "", re.MULTILINE):
        assert getattr(errors, name).status == int(status), name


@pytest.mark.parametrize("error", LEAVES)
def test_every_error_says_whether_a_retry_could_help(error: type[ImgpipeError]) -> None:
    assert issubclass(error, Retryable) + issubclass(error, Permanent) + issubclass(error, LeaseLost) == 1


@pytest.mark.parametrize("error", EVERY)
def test_every_error_has_a_status_a_title_a_code_and_a_docstring(error: type[ImgpipeError]) -> None:
    made = error("what happened")
    assert 400 <= made.status <= 599
    assert made.title
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", made.code)
    assert error.__doc__


def test_codes_are_unique_and_made_of_the_names_words() -> None:
    codes = [error("").code for error in EVERY]
    assert len(set(codes)) == len(codes)
    assert errors.BadImage("").code == "bad-image"


@pytest.mark.parametrize("error", [errors.SpendingPaused, errors.BackendUnavailable])
def test_what_is_not_the_items_fault_spends_no_attempt(error: type[Retryable]) -> None:
    assert not error.spends_attempt
    assert Retryable.spends_attempt


def test_the_detail_is_not_part_of_what_is_shown() -> None:
    error = RateLimited("slow down", detail="secret answer", retry_after=3)
    assert (str(error), error.public, error.detail, error.retry_after) == ("slow down", "slow down", "secret answer", 3)
    assert "secret" not in str(error)
    assert BadInput("no", field="email").field == "email"
