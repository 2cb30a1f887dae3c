"""Query parameters: a misspelt filter must not answer with everything."""

from fastapi import Depends, Request

from imgpipe_orchestration.errors import BadInput


class UnknownParameter(BadInput):
    """A query parameter that the route does not have."""

    status = 400


def _known_only(request: Request) -> None:
    """
    Raises:
        UnknownParameter: the query has one that the route does not have.
    """
    known = [parameter.alias for parameter in request.scope["route"].dependant.query_params]
    for name in request.query_params:
        if name not in known:
            raise UnknownParameter(f"There is no parameter {name!r:.80}, only {', '.join(known)}.", field=name)


KNOWN_ONLY = [Depends(_known_only)]
"""Dependencies of every route whose parameters narrow down its answer. Not of images: others extend their URLs."""
