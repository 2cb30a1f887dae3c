"""Documents in MongoDB: one client per process, with its errors turned into ours.

Uses only what MongoDB, FerretDB and the embedded server all do correctly: no transactions, change streams or pipeline
updates. docs/auto_marker.md says what the embedded server gets wrong.
"""

from __future__ import annotations

import re
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
    from pymongo.errors import OperationFailure

Document = dict[str, Any]

_REFUSED = frozenset({13, 18, 8000})
"""MongoDB's codes Unauthorized, AuthenticationFailed and Atlas' own. Work waits until the settings are corrected."""

_PASSING = frozenset({6, 7, 24, 43, 64, 79, 89, 100, 112, 133, 134, 175, 202, 262, 9001, 14031})
"""Codes of a replica set that cannot do it now: unreachable members, timeouts between members or for a lock, failed
write concerns, lost cursors or plans, a full disk."""

_STEPS_DOWN = frozenset({91, 189, 10058, 10107, 11600, 11602, 13435, 13436})
"""Codes of a server that steps down or shuts down. pymongo reports a lost connection for these, unless the server had
already written and was waiting for the others."""

_OF_THE_DRIVER = re.compile(r" \(configured timeouts: [^)]*\)|, Timeout: \S+, Topology Description: .*", re.DOTALL)
"""What pymongo adds to a message: its timeouts, and the state of each server."""


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
            raise SettingsError(
                "MONGODB_URL is not set: start `imgpipe up`, or point it at a MongoDB", field="MONGODB_URL"
            )
        from pymongo import MongoClient
        from pymongo.errors import ConfigurationError, InvalidURI

        options: dict[str, Any] = {
            "appname": "imgpipe",
            "retryWrites": True,
            "retryReads": True,
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
            raise SettingsError(f"MONGODB_URL cannot be used: {error}", field="MONGODB_URL") from error

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
        BackendUnavailable: one of these. Other errors pass.
    """
    from pymongo.errors import ConnectionFailure, ExecutionTimeout, OperationFailure

    try:
        yield
    except ConnectionFailure as error:
        detail = _OF_THE_DRIVER.sub("", str(error))
        message = "MongoDB cannot be reached. What was accepted waits and goes on by itself."
        raise BackendUnavailable(message, detail=detail) from error
    except ExecutionTimeout as error:
        raise BackendUnavailable(
            "MongoDB took too long over a query. What was accepted waits and goes on by itself. If it stays so, "
            "`imgpipe doctor` names the indexes that are missing.",
            detail=str(error),
        ) from error
    except OperationFailure as error:
        if _passing(error):
            raise BackendUnavailable(
                "MongoDB cannot do it at this moment. What was accepted waits and goes on by itself.", detail=str(error)
            ) from error
        if error.code in _REFUSED:
            refusal = "MongoDB refuses our credentials; check MONGODB_URL."
            raise BackendUnavailable(refusal, detail=str(error)) from error
        raise


def _passing(error: OperationFailure) -> bool:
    """Whether the error is due to the server's state at this moment; for a bulk write, that of any of its parts."""
    details = error.details or {}
    parts = [*details.get("writeErrors", []), *details.get("writeConcernErrors", [])]
    return any(code in _PASSING | _STEPS_DOWN for code in (error.code, *(part.get("code") for part in parts)))
