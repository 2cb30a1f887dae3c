"""A partner's refusals that people mend."""

from __future__ import annotations

from imgpipe_orchestration.errors import ImgpipeError, PartnerRefused, PartnerUnavailable


def mendable(error: ImgpipeError) -> ImgpipeError:
    """A refused credential as a failure that is tried again: keys expire and are renewed, and no image should be lost
    or stay without its analysis over one. Any other error as it is.
    """
    if isinstance(error, PartnerRefused) and error.partner_status in {401, 403}:
        return PartnerUnavailable(error.public, detail=error.detail)
    return error
