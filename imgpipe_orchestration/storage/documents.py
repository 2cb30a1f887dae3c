"""Documents in MongoDB: one client per process, with its errors turned into ours.

Uses only what MongoDB, FerretDB and the embedded server all do correctly: no transactions, change streams or pipeline
updates. docs/auto_marker.md says what the embedded server gets wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from imgpipe_orchestration.errors import BackendUnavailable, SettingsError
from imgpipe_orchestration.storage.made_once import made_once

if TYPE_CHECKING:
    from pymongo import MongoClient
    from pymongo.collection import Collection
    from pymongo.database import Database

Document = dict[str, Any]

_REFUSED = frozenset({13, 18, 8000})
"""MongoDB's codes Unauthorized, AuthenticationFailed and Atlas' own. Work waits until the settings are corrected."""

_PASSING = frozenset({6, 7, 24, 43, 64, 79, 89, 100, 112, 133, 134, 175, 202, 262, 9001, 14031}) | frozenset(
    {91, 189, 10058, 10107, 11600, 11602, 13435, 13436}
)
"""Codes of a replica set that cannot do it now: unreachable members, timeouts between members or for a lock, failed
write concerns, lost cursors or plans, a full disk; and of a server that steps or shuts down, for which pymongo reports
a lost connection unless it had already written and was waiting for the others."""
_WAITS = "What was accepted waits and goes on by itself; send anything else again."


class Refused(BackendUnavailable):
    """MongoDB answers and refuses: the credentials are wrong, or their user lacks a role."""


class TookTooLong(BackendUnavailable):
    """MongoDB gave up a query at its time limit."""


class Documents:
    """One MongoDB database. The client is made on first use and its pool is shared by the process's threads."""

    def __init__(self, url: str, *, database: str) -> None:
        """
        Args:
            url: `mongodb://...` or `mongodb+srv://...`; the database it names wins over `database`.
        """
        self.url = url
        self._default = database

    @made_once
    def client(self) -> MongoClient[Document]:
        """
        Raises:
            SettingsError: MONGODB_URL is empty or cannot be read.
        """
        if not self.url:
            raise SettingsError("MONGODB_URL is not set: start `imgpipe up`, or point it at a MongoDB")
        from pymongo import MongoClient
        from pymongo.errors import ConfigurationError, InvalidURI

        options: dict[str, Any] = {
            "appname": "imgpipe",
            "serverSelectionTimeoutMS": 5_000,
            "connectTimeoutMS": 5_000,
            "socketTimeoutMS": 30_000,
            "waitQueueTimeoutMS": 30_000,
            "maxPoolSize": 32,
        }
        # Options in the URL take precedence; with pymongo the arguments would.
        in_url = {name.lower() for name, _ in parse_qsl(urlsplit(self.url).query, keep_blank_values=True)}
        try:
            return MongoClient(
                self.url, tz_aware=True, **{name: v for name, v in options.items() if name.lower() not in in_url}
            )
        except (ConfigurationError, InvalidURI, ValueError, OSError) as error:  # OSError: of a file that it names
            raise SettingsError(f"MONGODB_URL cannot be used: {error}") from error

    @made_once
    def database(self) -> Database[Document]:
        return self.client.get_default_database(default=self._default)

    def collection(self, name: str) -> Collection[Document]:
        return self.database[name]

    def naming(self, user_id: int) -> dict[str, int]:
        """How many documents of each collection have this user as their `user_id`, written in any way."""
        written = [user_id, str(user_id), f"user_{user_id}"]
        with reachable():
            names = sorted(self.database.list_collection_names())
            counts = {name: self.collection(name).count_documents({"user_id": {"$in": written}}) for name in names}
        return {name: count for name, count in counts.items() if count}

    def ping(self) -> None:
        """
        Raises:
            BackendUnavailable: nobody answers.
            SettingsError: no or a wrong MONGODB_URL.
        """
        with reachable():
            self.client.admin.command("ping")

    def close(self) -> None:
        client = self.__dict__.pop("client", None)
        self.__dict__.pop("database", None)
        if client is not None:
            client.close()


@contextmanager
def reachable() -> Iterator[None]:
    """Turns the driver's errors into ours where MongoDB is away, hangs, cannot do it now or refuses our credentials.

    Raises:
        BackendUnavailable: one of these, with `TookTooLong` and `Refused`. Other errors pass.
    """
    from pymongo.errors import ConnectionFailure, ExecutionTimeout, OperationFailure

    try:
        yield
    except ConnectionFailure as error:
        # Without what pymongo adds: its timeouts, and the state of each server.
        detail = str(error).partition(" (configured timeouts:")[0].partition(", Timeout: ")[0]
        raise BackendUnavailable(f"MongoDB cannot be reached. {_WAITS}", detail=detail) from error
    except ExecutionTimeout as error:
        hint = "If this persists, `imgpipe doctor` names the indexes that are missing."
        raise TookTooLong(f"MongoDB took too long over a query. {_WAITS} {hint}", detail=str(error)) from error
    except OperationFailure as error:
        details = error.details or {}
        parts = [*details.get("writeErrors", []), *details.get("writeConcernErrors", [])]  # of a bulk write
        if any(code in _PASSING for code in (error.code, *(part.get("code") for part in parts))):
            raise BackendUnavailable(f"MongoDB cannot do it at this moment. {_WAITS}", detail=str(error)) from error
        if error.code in _REFUSED:
            refusal = "MongoDB refuses our credentials, or their user lacks a role; check MONGODB_URL."
            raise Refused(refusal, detail=str(error)) from error
        raise
