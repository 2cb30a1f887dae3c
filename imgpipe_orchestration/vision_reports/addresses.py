"""Which addresses an execution may be given: by a cron job, or by the command line."""

from __future__ import annotations

from urllib.parse import urlsplit

from imgpipe_orchestration.errors import BadInput
from imgpipe_orchestration.partners.fetch import check_url

_EXTERNAL = "external_api_"


def check_address(field: str, url: str, *, production: bool) -> None:
    """
    Raises:
        BadInput: it is no plain http(s) address; or in production the external API's is not https, as the customer's
            token is sent with every call.
    """
    try:
        check_url(url)
    except BadInput as error:
        told = f"{field} must be an http or https address without a user name in it"
        raise BadInput(told, field=field, detail=error.public) from error
    if production and field.startswith(_EXTERNAL) and urlsplit(url).scheme != "https":
        raise BadInput(f"{field} must be an https address in production", field=field)
