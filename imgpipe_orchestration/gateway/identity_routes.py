"""Named keys and the audit: the REST API."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from imgpipe_orchestration.identity import audit, keys
from imgpipe_orchestration.identity.keys import NamedKey
from imgpipe_orchestration.identity.model import Role
from imgpipe_orchestration.web.auth import Allowed, ServicesDep, allowed
from imgpipe_orchestration.web.values import RowId

router = APIRouter(prefix="/api", tags=["identity"], dependencies=[Depends(allowed)])

MOST_ROWS = 1_000


class NewKey(BaseModel, extra="forbid"):
    name: str = Field(description="What the key is for, such as `shop`")
    role: Role
    expires_days: float | None = Field(None, gt=0, allow_inf_nan=False, description="Days until the key expires")


@dataclass(frozen=True, slots=True)
class CreatedKey(NamedKey):
    """The key itself is shown this once."""

    key: str


class Keys(BaseModel):
    keys: list[NamedKey]


@router.get("/keys")
def list_keys(services: ServicesDep) -> Keys:
    """All named keys, the newest first; never the keys themselves."""
    return Keys(keys=keys.every(services.engine))


@router.post("/keys", status_code=201)
def create_key(services: ServicesDep, caller: Allowed, body: NewKey) -> CreatedKey:
    """A new key for a machine. The answer is the only place where it can be read."""
    audit.note(after={"role": body.role, "expires_days": body.expires_days}, subject=body.name)
    made, key = keys.create(services.engine, body.name, body.role, by=caller.name, days=body.expires_days)
    return CreatedKey(**asdict(made), key=key)


@router.delete("/keys/{name:path}")
def revoke_key(services: ServicesDep, name: str) -> NamedKey:
    """End a key. Every gateway refuses it within 6 s."""
    return keys.revoke(services.engine, name)


@router.get("/audit", response_model=None, responses={200: {"content": {"application/x-ndjson": {}}}})
def read_audit(
    request: Request,
    services: ServicesDep,
    cursor: Annotated[RowId | None, Query(description="`next_cursor` of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_ROWS)] = 100,
    who: Annotated[str, Query(description="rows whose `who` contains this")] = "",
    action: Annotated[str, Query(description="rows whose `action` contains this")] = "",
    subject: Annotated[str, Query(description="rows whose `subject` contains this")] = "",
    since: datetime | None = None,
    until: datetime | None = None,
    form: Annotated[Literal["json", "jsonl"] | None, Query(alias="format", description="else by Accept")] = None,
) -> Response | dict[str, Any]:
    """Who did what, the newest first. As `jsonl` (`Accept: application/x-ndjson`): all of it, a JSON object a line."""
    filters: dict[str, Any] = {"who": who, "action": action, "subject": subject, "since": since, "until": until}
    if "application/x-ndjson" in request.headers.get("accept", "") if form is None else form == "jsonl":

        def lines() -> Iterator[str]:
            last = cursor
            while rows := audit.page(services.engine, limit=MOST_ROWS, before=last, **filters):
                last = rows[-1]["id"]
                yield "".join(json.dumps(row) + "\n" for row in rows)

        return StreamingResponse(lines(), media_type="application/x-ndjson", headers={"Cache-Control": "no-store"})
    rows = audit.page(services.engine, limit=limit, before=cursor, **filters)
    return {"rows": rows, "next_cursor": rows[-1]["id"] if len(rows) == limit else None}
