"""Partners' refusals that an operator can correct."""

from __future__ import annotations

from imgpipe_orchestration.errors import ImgpipeError, PartnerRefused, PartnerUnavailable


def mendable(error: ImgpipeError) -> ImgpipeError:
    """A refused credential, or a redirect (to a login or a maintenance page), as an error that is retried, so that no
    image fails or stays without analysis because of it. Any other error as it is.
    """
    if isinstance(error, PartnerRefused) and error.partner_status in _MENDED_BY_PEOPLE:
        return PartnerUnavailable(error.public, detail=error.detail)
    return error


_MENDED_BY_PEOPLE = {401, 403, *range(300, 400)}
