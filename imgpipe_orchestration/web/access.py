"""Which route needs what: the one table of who may do what, and of what the audit calls it.

Every route is in it; SECURITY.md shows it, and tests hold both against the routes and the OpenAPI document.
"""

import re
from dataclasses import dataclass
from functools import cache

from fastapi import Request
from starlette.routing import compile_path

from imgpipe_orchestration.identity.model import Role


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may use a route.

    Attributes:
        who: the name of the rule in SECURITY.md.
        role: the least role of a session or a named key that opens it. None: none does.
        keys: settings whose keys open it too. ADMIN_API_KEY has the role admin and opens every route that has a role.
        user: a user's token opens it.
        local: in development, programs and pages of this machine need no key. One that they send must open the route.
    """

    who: str
    role: Role | None = None
    keys: tuple[str, ...] = ()
    user: bool = False
    local: bool = False


_MEDIA = ("media_api_key", "main_api_key")  # our workers send the second one with callbacks to ourselves

ANYBODY = Rule("anybody")
REPORTER = Rule("anybody", user=True)  # a user's token tells who it is
USER = Rule("user", user=True)
OWNER = Rule("owner", Role.OPERATOR, ("media_api_key",), user=True)
UPLOADER = Rule("uploader", Role.OPERATOR, user=True, local=True)
PERSON = Rule("person", Role.ADMIN, user=True, local=True)
MEDIA_READER = Rule("media reader", Role.VIEWER, _MEDIA)
MEDIA_WORKER = Rule("media worker", Role.OPERATOR, _MEDIA)
ANALYSIS_CLIENT = Rule("analysis client", Role.OPERATOR, ("backend_api_key",), local=True)
PROMETHEUS = Rule("prometheus", Role.VIEWER, ("metrics_api_key",), local=True)
VIEWER = Rule("viewer", Role.VIEWER, local=True)
OPERATOR = Rule("operator", Role.OPERATOR, local=True)
ADMIN = Rule("admin", Role.ADMIN, local=True)

RULES: dict[Rule, str] = {
    ANYBODY: """
        GET /health
        GET /health/live
        GET /openapi.json
        GET /serve/{media_id}
        GET /api/images/{media_id}
        GET /picture/{media_id}
        GET /api/images/{media_id}/info
        GET /api/images/{media_id}/analysis
        GET /components/{name}
        GET /storage/v1/object/public/listing-images/{file_name}
        GET /temp_images/{folder}/{name}
        GET /auth/sign-in
        GET /auth/callback
        GET /auth/verify
        GET /login
        POST /login
        POST /logout: sign out
        GET /static/{name}
        GET /favicon.ico
    """,
    REPORTER: "POST /api/media/{media_id}/report: report image",
    USER: """
        GET /users/me
        PATCH /users/me
        POST /api/upload/listing_image
        POST /api/media/uploads
        POST /api/media/uploads/{upload_id}/commit
        GET /users/me/export
        DELETE /users/me: erase user
    """,
    OWNER: """
        PATCH /api/media/analysis/{media_id}: correct analysis
        PUT /api/media/{media_id}/privacy: change privacy
        POST /api/media/{media_id}/signed-url
        DELETE /api/media/{media_id}: delete
        DELETE /api/media/pending/{image_id}: delete
        POST /api/media/{media_id}/restore: restore
        POST /api/media/bulk: change many
    """,
    UPLOADER: """
        DELETE /api/listings/{listing_id}/images: delete
        DELETE /api/listings/images/{image_id}: delete
        POST /api/listings/images/{image_id}/restore: restore
    """,
    PERSON: "GET /api/erasures/{erasure_id}",
    MEDIA_READER: """
        GET /api/media/pending/all
        GET /api/media/analysis/{media_id}
        GET /api/media/search
        GET /api/media/duplicates/{media_id}
    """,
    MEDIA_WORKER: """
        POST /api/media/complete/{image_id}
        PUT /api/media/focus/{media_id}: set focus
        DELETE /api/media/cleanup/{image_id}: clean up upload
    """,
    ANALYSIS_CLIENT: """
        GET /available_models
        POST /batch-analysis/images
        POST /batch-analysis/batches
        GET /batch-analysis/batches/{batch_id}
        GET /batch-analysis/batches/{batch_id}/report
    """,
    PROMETHEUS: "GET /metrics",
    VIEWER: """
        GET /api/avatars/tasks
        GET /api/avatars/tasks/{task_id}
        GET /api/avatars/tasks/{task_id}/export
        GET /api/avatars/figures
        GET /api/customers/{customer_id:path}/image-config
        GET /api/budgets
        GET /api/spending
        GET /spending
        GET /spending/export
        GET /api/jobs
        GET /api/jobs/{job_id}
        GET /cron-jobs
        GET /cron-jobs/{job_id}
        GET /cron-jobs/{job_id}/executions
        GET /
        GET /events
        GET /failures
        GET /failures/{queue}/{item_id}
        GET /media
        GET /media/{media_id}
        GET /listings
        GET /processing
        GET /vision-reports
        GET /vision-reports/{job_id}
        GET /vision-reports/report/{batch_id}
        GET /avatars
        GET /avatars/{task_id}
        GET /avatars/{task_id}/export
        GET /avatars/{task_id}/{person_id}/{name}
        GET /components
        GET /docs
        GET /docs/{name}
    """,
    OPERATOR: """
        GET /api/media
        GET /api/moderation/queue
        POST /api/moderation/{media_id}: moderate
        POST /api/moderation/listings/{image_id}: moderate
        POST /api/moderation/{kind}/{item}: moderate
        GET /review
        GET /review/{kind}/{item}/picture
        POST /review/decide: moderate
        POST /review/existing: judge existing
        POST /api/avatars/tasks: ask for avatars
        POST /api/avatars/tasks/{task_id}/cancel: cancel avatars
        POST /api/avatars/tasks/{task_id}/retry-failed: requeue
        DELETE /api/avatars/tasks/{task_id}: delete
        DELETE /api/avatars/personas/{persona_id}: delete
        POST /api/jobs: start job
        POST /api/jobs/trigger: run auto-marker
        DELETE /api/jobs/{job_id}: stop job
        POST /cron-jobs/{job_id}/run: run cron job
        POST /failures/requeue: requeue
        POST /failures/end_pauses: end pauses
        POST /media/{media_id}/correct: correct analysis
        POST /media/{media_id}/focus: set focus
        POST /media/{media_id}/focus/forget: forget focus
        POST /selected: change many
        GET /trash
        GET /upload
        GET /upload/state
        POST /upload: upload
        POST /listings: upload
        POST /listings/job: switch job
        POST /processing/run: run auto-marker
        POST /vision-reports/{job_id}/run: run cron job
        POST /avatars: ask for avatars
        POST /avatars/{task_id}/cancel: cancel avatars
        POST /avatars/{task_id}/retry: requeue
    """,
    ADMIN: """
        GET /api/users/{user_id}/export
        DELETE /api/users/{user_id}: erase user
        PUT /api/budgets: change budget
        DELETE /api/budgets: delete budget
        GET /api/keys
        POST /api/keys: create key
        DELETE /api/keys/{name:path}: revoke key
        GET /api/audit
        GET /keys
        POST /keys: create key
        POST /keys/revoke: revoke key
        GET /audit
        POST /spending/budgets: change budget
        POST /spending/budgets/remove: delete budget
        GET /erasures
        POST /erasures: erase user
        PUT /api/customers/{customer_id:path}/image-config: switch auto-marker
        POST /cron-jobs: create cron job
        PATCH /cron-jobs/{job_id}: change cron job
        DELETE /cron-jobs/{job_id}: delete cron job
        POST /cron-jobs/{job_id}/activate: activate cron job
        POST /cron-jobs/{job_id}/deactivate: deactivate cron job
        POST /processing/toggle: switch auto-marker
        GET /vision-reports/new
        POST /vision-reports/new: create cron job
        GET /vision-reports/{job_id}/edit
        POST /vision-reports/{job_id}/edit: change cron job
        POST /vision-reports/{job_id}/switch: switch cron job
        POST /vision-reports/{job_id}/delete: delete cron job
    """,
}
"""Routes by rule: method, path and, for a change that the audit records, its name there. What users upload and what
workers report is work rather than a change by a person, so it has no name."""

DEBUGGING = "/debug/"
"""Routes that development only has."""


def _parsed() -> dict[tuple[str, str], tuple[Rule, str]]:
    found = {}
    for rule, routes in RULES.items():
        for line in filter(None, map(str.strip, routes.splitlines())):
            route, _, action = line.partition(": ")
            method, _, path = route.partition(" ")
            found[method, path] = (rule, action)
    return found


ACCESS = _parsed()


@cache
def _patterns() -> list[tuple[str, re.Pattern[str], Rule]]:
    return [(method, compile_path(path)[0], rule) for (method, path), (rule, _) in ACCESS.items()]


def takes_token(method: str, path: str) -> bool:
    """Whether a request may be made with a user's token."""
    return any(rule.user and of == method and pattern.match(path) for of, pattern, rule in _patterns())


def methods_at(path: str) -> str:
    """The methods that a path takes, of all its routes, as the header `Allow` names them."""
    found = {method for method, pattern, _ in _patterns() if pattern.match(path)}
    return ", ".join(sorted(found | {"HEAD"} if "GET" in found else found))


def rule_of(request: Request) -> tuple[Rule, str]:
    """The rule of a request's route, and the name of what it does in the audit. A route missing from the table needs an
    admin."""
    path = getattr(request.scope.get("route"), "path", "")
    if path.startswith(DEBUGGING):
        return OPERATOR, ""
    return ACCESS.get((request.method, path), (ADMIN, "change"))
