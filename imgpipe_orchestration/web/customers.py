"""Which customer is asking: the header `X-Customer-ID`."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import unquote

from fastapi import Depends, Header

from imgpipe_orchestration.errors import BadInput

_EXTENDED = re.compile(r"utf-8'[^']*'", re.IGNORECASE)
"""RFC 8187's notation for text that a header cannot hold, such as line breaks and NUL: `UTF-8''a%0Ab`. A language may
stand between the quotes."""

CustomerHeader = Annotated[
    str | None,
    Header(alias="X-Customer-ID", description="The customer; any text, as UTF-8 or in RFC 8187's `UTF-8''a%0Ab`."),
]


def text_of(header: str) -> str:
    """A header's value as text: ASGI hands over bytes read as Latin-1, clients send UTF-8.

    Raises:
        BadInput: it is in RFC 8187's notation and not UTF-8.
    """
    try:
        value = header.encode("latin-1").decode()
    except UnicodeError:
        value = header
    if notation := _EXTENDED.match(value):
        try:
            return unquote(value[notation.end() :], errors="strict")
        except UnicodeDecodeError as error:
            raise BadInput(f"{value!r} is not UTF-8 in RFC 8187's notation.") from error
    return value


def customer_if_any(x_customer_id: CustomerHeader = None) -> str | None:
    """The customer who asks, or None when an operator asks.

    Raises:
        BadInput: the header is empty. That must not be taken for an operator, who sees everybody's jobs.
    """
    if x_customer_id is None:
        return None
    customer = text_of(x_customer_id)
    if not customer:
        raise BadInput("X-Customer-ID is empty.", field="X-Customer-ID")
    return customer


CustomerIfAny = Annotated[str | None, Depends(customer_if_any)]


def customer_required(customer: CustomerIfAny) -> str:
    """The customer who asks.

    Raises:
        BadInput: the header is missing.
    """
    if customer is None:
        raise BadInput("Send the header X-Customer-ID.", field="X-Customer-ID")
    return customer


Customer = Annotated[str, Depends(customer_required)]
