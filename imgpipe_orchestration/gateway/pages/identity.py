"""The pages of named keys and of the audit."""

from typing import Annotated

from fastapi import APIRouter, Form, Response
from pydantic import ValidationError

from imgpipe_orchestration.errors import BadInput, Conflict
from imgpipe_orchestration.gateway import identity_routes as api
from imgpipe_orchestration.gateway.pages.frame import Number, Page, back_to
from imgpipe_orchestration.gateway.session import Acting
from imgpipe_orchestration.identity import audit, keys
from imgpipe_orchestration.identity.model import Role
from imgpipe_orchestration.web.auth import ServicesDep
from imgpipe_orchestration.wiring.services import Services

router = APIRouter(include_in_schema=False)

ROWS = 100


@router.get("/keys", response_class=Response)
def keys_page(page: Page, services: ServicesDep) -> Response:
    return _keys(page, services)


@router.post("/keys", response_class=Response)
def key_made(
    page: Page,
    services: ServicesDep,
    session: Acting,
    name: Annotated[str, Form()] = "",
    role: Annotated[Role, Form()] = Role.VIEWER,
    days: Annotated[str, Form()] = "",
) -> Response:
    """Makes a key and shows it. No redirect: the key is on this one page and nowhere else."""
    typed = {"name": name, "role": role, "days": days}
    try:
        wanted = api.NewKey.model_validate({"name": name, "role": role, "expires_days": days.strip() or None})
        made = api.create_key(services, session.caller, wanted)
    except ValidationError:
        return _keys(page, services, status=422, trouble="The days must be a number above 0.", typed=typed)
    except (BadInput, Conflict) as error:
        return _keys(page, services, status=error.status, trouble=error.public, typed=typed)
    return _keys(page, services, status=201, made=made)


@router.post("/keys/revoke", response_class=Response)
def key_revoked(services: ServicesDep, _: Acting, name: Annotated[str, Form()]) -> Response:
    audit.note(subject=name)
    api.revoke_key(services, name)
    return back_to("/keys", notice=f"The key {name} is revoked. Every gateway refuses it within 6 seconds.")


@router.get("/audit", response_class=Response)
def audit_page(
    page: Page, services: ServicesDep, before: Number = "", who: str = "", action: str = "", subject: str = ""
) -> Response:
    last = int(before) if before else None
    rows = audit.page(services.engine, limit=ROWS + 1, before=last, who=who, action=action, subject=subject)
    older = rows[ROWS - 1]["id"] if len(rows) > ROWS else None
    return page("audit.html", rows=rows[:ROWS], older=older, filters={"who": who, "action": action, "subject": subject})


def _keys(page: Page, services: Services, *, status: int = 200, **values: object) -> Response:
    shown = {"made": None, "typed": {"name": "", "role": Role.VIEWER, "days": ""}, **values}
    return page("keys.html", status=status, keys=keys.every(services.engine), roles=list(Role), **shown)
