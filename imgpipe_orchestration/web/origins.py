"""Where a request comes from: this machine or elsewhere, one of our own pages or another site's."""

from __future__ import annotations

from ipaddress import ip_address

from fastapi import Request


def is_local(request: Request) -> bool:
    """Whether both the client and the Host are loopback. The Host too, against DNS rebinding by another site."""
    return is_loopback(request.client.host if request.client else "") and is_loopback(request.url.hostname or "")


def is_of_another_site(request: Request) -> bool:
    """Whether a page of another site sent the request, according to Origin and Sec-Fetch-Site."""
    if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        return True
    origin = request.headers.get("origin")
    return origin is not None and origin.partition("://")[2] != request.url.netloc


def is_led_here_by_us(request: Request) -> bool:
    """Whether one of our own pages led a browser here: no other site's link, no bookmark and no typed address. True
    where the browser does not say, as over plain http."""
    return request.headers.get("sec-fetch-site", "same-origin") == "same-origin"


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
