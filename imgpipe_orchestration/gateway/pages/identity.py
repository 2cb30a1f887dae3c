"""The pages of named keys and of the audit."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response

from imgpipe_orchestration.errors import BadInput, Conflict
from imgpipe_orchestration.gateway.pages.frame import Number, PageRoute, back_to, page
from imgpipe_orchestration.gateway.session import Acting, Operator, Session
from imgpipe_orchestration.identity import audit, keys
from imgpipe_orchestration.identity.model import Role
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.web.auth import ServicesDep

router = APIRouter(include_in_schema=False, route_class=PageRoute)

ROWS = 100


@router.get("/keys", response_class=Response)
def list_keys(request: Request, services: ServicesDep, session: Operator) -> Response:
    """Every key and its role, and the form for a new one."""
    return _keys(request, services, session)


@router.post("/keys", response_class=Response)
def create_key(
    request: Request,
    services: ServicesDep,
    session: Acting,
    name: Annotated[str, Form()] = "",
    role: Annotated[Role, Form()] = Role.VIEWER,
    days: Annotated[str, Form()] = "",
) -> Response:
    """Makes a key and shows it. No redirect: the key is on this one page and nowhere else."""
    typed = {"name": name, "role": role, "days": days}
    audit.note(after={"role": role, "expires_days": days or None}, subject=name)
    try:
        lives = float(days) if days.strip() else None
        made, key = keys.create(services.engine, name, role, by=session.caller.name, days=lives)
    except ValueError:
        return _keys(request, services, session, status=422, trouble="The days must be a number.", typed=typed)
    except (BadInput, Conflict) as error:
        return _keys(request, services, session, status=error.status, trouble=error.public, typed=typed)
    return _keys(request, services, session, status=201, made=made, key=key)


@router.post("/keys/{name}/revoke", response_class=Response)
def revoke_key(services: ServicesDep, _: Acting, name: str) -> Response:
    """Ends a key."""
    keys.revoke(services.engine, name)
    return back_to("/keys", notice=f"The key {name} is revoked. Every gateway refuses it within 6 seconds.")


@router.get("/audit", response_class=Response)
def read_audit(
    request: Request,
    services: ServicesDep,
    session: Operator,
    before: Number = "",
    who: str = "",
    action: str = "",
    subject: str = "",
) -> Response:
    """Who did what, with filters."""
    last = int(before) if before else None
    rows = audit.page(services.engine, limit=ROWS + 1, before=last, who=who, action=action, subject=subject)
    older = rows[ROWS - 1]["id"] if len(rows) > ROWS else None
    return page(
        request,
        "audit.html",
        session,
        rows=rows[:ROWS],
        older=older,
        filters={"who": who, "action": action, "subject": subject},
    )


def _keys(request: Request, services: Services, session: Session, *, status: int = 200, **values: object) -> Response:
    shown = {"made": None, "key": "", "typed": {"name": "", "role": Role.VIEWER, "days": ""}, **values}
    return page(
        request, "keys.html", session, status=status, keys=keys.every(services.engine), roles=list(Role), **shown
    )
