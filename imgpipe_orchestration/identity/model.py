"""Roles, and the person or key behind a request."""

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What somebody may do. Each role may do what those before it may."""

    VIEWER = "viewer"  # sees
    OPERATOR = "operator"  # requeues, uploads, deletes, decides
    ADMIN = "admin"  # keys, budgets, erasures, settings of customers

    def covers(self, needed: "Role") -> bool:
        """Whether somebody with this role may do what `needed` may."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


class Kind(StrEnum):
    """How a caller was recognised."""

    PERSON = "person"  # a session of the pages
    KEY = "key"  # a named key
    ENVIRONMENT = "environment"  # a key of the settings
    USER = "user"  # a token signed with USER_JWT_SECRET
    LOCAL = "local"  # a program or page on this machine, in development
    COMMAND = "command"  # `imgpipe` on the command line


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `role` is None for users and for keys of the settings that open some routes only."""

    name: str
    kind: Kind
    role: Role | None = None
    user: int | None = None
    """The user id of a user's token."""
