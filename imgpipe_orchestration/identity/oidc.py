"""Sign-in at an OpenID Connect provider: the authorization code flow with PKCE.

Authlib speaks OAuth 2 and checks the ID token's claims. Here is which provider, what of its answer makes a caller, and
what its failures are called.
"""

import json
import math
import threading
import time
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any
from urllib.parse import quote, urlencode

import requests
from authlib.common.errors import AuthlibBaseError
from authlib.common.security import generate_token
from authlib.integrations.requests_client import OAuth2Session
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, import_key
from joserfc.jws import JWSRegistry
from pydantic import TypeAdapter

from imgpipe_orchestration.errors import Forbidden, PartnerAway, Unauthenticated
from imgpipe_orchestration.identity.model import Caller, Kind, Role
from imgpipe_orchestration.settings import Settings

CALLBACK = "/auth/callback"
TIMEOUT = 10.0
"""Seconds that the provider may take over an answer."""
PATIENCE = 2.0
"""Seconds, from the first request on, that others wait for the same answer: each holds a thread of the gateway."""
AWAY_SECONDS = 20.0
"""Seconds from asking until a provider that did not answer is asked again."""
METADATA_SECONDS = 600.0
LEEWAY = 360
"""Seconds that our clock and the provider's may differ: five minutes, as Kerberos allows, and one to work in."""
SIGNATURES = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Signatures that need the provider's private key; `none` and those by the client's secret are refused."""
_TOKENS = JWSRegistry(algorithms=SIGNATURES, strict_check_header=False)  # RFC 7515, section 4: ignore what is unknown
_TOKENS.max_header_length = 16_384  # certificates may be in it


class Provider:
    """The provider of OIDC_ISSUER. Its metadata and keys are kept for METADATA_SECONDS."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def begin(self) -> tuple[str, dict[str, str]]:
        """Where to send the browser, and what it must bring back: kept in a signed cookie of that browser, so that a
        state or a code that somebody stole is worth nothing in another one.

        Raises:
            PartnerAway: the provider does not answer.
        """
        metadata = self._metadata()
        started = {"state": generate_token(32), "nonce": generate_token(32), "code_verifier": generate_token(48)}
        claim = self._settings.oidc_groups_claim
        scopes = ["openid", "email", "profile", *([claim] if claim in metadata.get("scopes_supported", ()) else [])]
        session = self._session(" ".join(scopes))
        url, _ = session.create_authorization_url(metadata["authorization_endpoint"], **started)
        return str(url), started

    def finish(self, started: Mapping[str, str], answer: Mapping[str, str]) -> Caller:
        """The person that the provider's answer is about.

        Args:
            started: what the browser brought back.
            answer: the query with which it came.

        Raises:
            Unauthenticated: the answer is not for this browser, was used before, or its ID token is not right.
            Forbidden: OIDC_ROLES gives the person no role.
            PartnerAway: the provider does not answer.
        """
        if answer.get("state") != started["state"]:
            raise Unauthenticated("This sign-in was not begun in this browser, or in another tab since. Begin again.")
        if refusal := answer.get("error"):
            raise Unauthenticated(f"The sign-in provider refused: {answer.get('error_description') or refusal}")
        metadata = self._metadata()
        session = self._session()
        try:
            token = session.fetch_token(
                metadata["token_endpoint"],
                code=answer.get("code", ""),
                code_verifier=started["code_verifier"],
                timeout=TIMEOUT,
                **self._secret(metadata.get("token_endpoint_auth_methods_supported", ())),
            )
            claims = self._claims(token, started["nonce"])
            needed = (self._settings.oidc_groups_claim, "email")
            if not all(map(claims.get, needed)) and "userinfo_endpoint" in metadata:
                try:
                    told = _further(session, metadata["userinfo_endpoint"], claims["sub"])
                    # The ID token counts wherever it says anything; an `email_verified` is about its own address.
                    if claims.get("email") not in (None, "", told.get("email")):
                        told.pop("email_verified", None)
                    about = {"email_verified": "email"}
                    claims = told | {name: one for name, one in claims.items() if claims.get(about.get(name, name))}
                except PartnerAway:
                    with suppress(NoRole):
                        return self._person(claims)  # whose ID token says enough
                    raise
        except requests.RequestException as error:
            raise _away(error) from error
        except (AuthlibBaseError, JoseError, ValueError) as error:
            words = "The sign-in could not be verified, or was used already. Begin again; the audit tells an admin why."
            raise Unauthenticated(words, detail=f"{type(error).__name__}: {error}") from error
        return self._person(claims)

    def ended(self, back: str) -> str | None:
        """Where to end the session at the provider; None where it has no such place or is away."""
        try:
            endpoint = self._metadata().get("end_session_endpoint")
        except PartnerAway:
            return None
        query = urlencode({"client_id": self._settings.oidc_client_id, "post_logout_redirect_uri": back})
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{query}" if endpoint else None

    def _person(self, claims: Mapping[str, Any]) -> Caller:
        address = str(claims.get("email") or "")
        # An unverified address must not let somebody pass for its owner. Some say "true" for true.
        proven = claims.get("email_verified", True) in (True, "true")
        named = str(claims.get("preferred_username") or "")
        name = (address if proven else "") or ("" if "@" in named else named) or str(claims["sub"])
        groups = claims.get(self._settings.oidc_groups_claim) or []
        given: dict[str, str] = json.loads(self._settings.oidc_roles or "{}")
        of = {str(group) for group in (groups if isinstance(groups, list | dict) else [groups])}
        # As bytes, because `str.lower` makes an ASCII letter of others too.
        of |= {one for one in given if proven and one.encode().lower() == address.encode().lower()}
        roles = [Role(given[one]) for one in of if one in given]
        if not roles:
            words = f"{name} is signed in at the provider, but has no role here. An admin can give one in OIDC_ROLES."
            raise NoRole(words, name)
        return Caller(name, Kind.PERSON, max(roles, key=list(Role).index))

    def _session(self, scope: str = "openid") -> OAuth2Session:
        return OAuth2Session(
            self._settings.oidc_client_id,
            scope=scope,
            redirect_uri=self._settings.public_base_url + CALLBACK,
            code_challenge_method="S256",
            leeway=0,  # Authlib's minute would refuse tokens that live no longer; ours are used at once
        )

    def _secret(self, methods: Collection[str]) -> dict[str, Any]:
        """How our secret goes to the provider, if there is one: with our id in the header, form-encoded (RFC 6749,
        section 2.3.1), which Authlib does not do; or in the body, to those who only take it there."""
        given = self._settings.oidc_client_id, self._settings.oidc_client_secret
        if not given[1]:
            return {}
        if "client_secret_post" in methods and "client_secret_basic" not in methods:
            return {"client_secret": given[1]}
        return {"auth": (quote(given[0], safe=""), quote(given[1], safe=""))}

    def _claims(self, token: Mapping[str, Any], nonce: str) -> dict[str, Any]:
        """The claims of the ID token, checked against the provider's keys. Unknown keys are fetched again."""
        for anew in (False, True):
            if anew:
                _asked.clear()
            keys = []
            for key in _known(self._metadata()["jwks_uri"])["keys"]:
                with suppress(JoseError, ValueError, LookupError):  # other clients' kinds (RFC 7517, section 5)
                    keys.append(import_key(key))
            try:
                read = jwt.decode(token.get("id_token", ""), KeySet(keys), registry=_TOKENS)
                break
            except (JoseError, ValueError):
                if anew:
                    raise
        issuer = {"essential": True, "value": self._metadata()["issuer"]}
        audience = {"essential": True, "value": self._settings.oidc_client_id}
        claims = CodeIDToken(
            read.claims,
            read.header,
            {"iss": issuer, "aud": audience},
            {"nonce": nonce, "client_id": self._settings.oidc_client_id, "access_token": token.get("access_token")},
        )
        claims.validate(leeway=LEEWAY)
        return dict(claims)

    def _metadata(self) -> dict[str, Any]:
        found: dict[str, Any] = _known(self._settings.oidc_issuer + "/.well-known/openid-configuration")
        if str(found.get("issuer", "")).rstrip("/") != self._settings.oidc_issuer:
            raise PartnerAway(f"The sign-in provider calls itself {found.get('issuer')!r}, which is not OIDC_ISSUER.")
        return found


def _further(session: OAuth2Session, url: str, subject: str) -> dict[str, Any]:
    """What the provider says of a person beside the ID token."""
    try:
        answer = session.get(url, timeout=TIMEOUT)
        answer.raise_for_status()
        told: dict[str, Any] = TypeAdapter(dict[str, Any]).validate_json(answer.content)
    except (requests.RequestException, ValueError) as error:
        raise _away(error) from error
    if told.get("sub") != subject:
        raise Unauthenticated("The sign-in provider answered about somebody else. Begin again.")
    return told


_lock = threading.Lock()
_asked: dict[str, tuple[float, Future[Any]]] = {}
"""When each address was asked, and what it answered, which may be an error."""


def _known(url: str) -> Any:
    """What the provider says there. One thread asks, and others wait for it."""
    with _lock:
        began, answer = _asked.get(url, (-math.inf, Future[Any]()))
        good = answer.done() and not isinstance(answer.result(), Exception)
        mine = time.monotonic() - began > (METADATA_SECONDS if good else AWAY_SECONDS)
        if mine:
            began, answer = _asked[url] = time.monotonic(), Future()
    if mine:
        try:
            got = requests.get(url, timeout=TIMEOUT)
            got.raise_for_status()
            answer.set_result(got.json())
        except (requests.RequestException, ValueError) as error:
            answer.set_result(error)
    try:
        found = answer.result(max(0.0, began + PATIENCE - time.monotonic()))
    except TimeoutError as error:
        found = error
    if isinstance(found, Exception):
        raise _away(found) from found
    return found


class NoRole(Forbidden):
    """A person whom OIDC_ROLES gives no role."""

    def __init__(self, public: str, name: str) -> None:
        super().__init__(public)
        self.name = name


def _away(error: Exception) -> PartnerAway:
    words = "The sign-in provider does not answer. Whoever is signed in stays signed in; try again in a minute."
    return PartnerAway(words, detail=f"{type(error).__name__}: {error}")
