"""The error tree: what each says of retries, statuses and who should hear of it."""

import re

from imgpipe_orchestration import errors
from imgpipe_orchestration.errors import ImgpipeError


def tree(root: type[ImgpipeError] = ImgpipeError) -> list[type[ImgpipeError]]:
    """Every error this module defines."""
    found = [root]
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            found += tree(child)
    return found


EVERY = list(dict.fromkeys(tree()))  # one has two parents


def test_the_drawing_in_the_docstring_is_the_tree() -> None:
    drawn = re.findall(r"^ *[│├└─ ]*(?:── )?([A-Z][A-Za-z]+)(?: {2,}|$)", errors.__doc__ or "", re.MULTILINE)
    assert drawn == [error.__name__ for error in EVERY]


def test_the_drawing_names_each_status() -> None:
    for name, status in re.findall(r"── ([A-Z][A-Za-z]+) .*?(\d{3})$", errors.__doc__ or "", re.MULTILINE):
        assert getattr(errors, name).status == int(status), name
