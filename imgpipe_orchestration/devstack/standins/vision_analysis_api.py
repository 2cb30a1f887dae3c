"""The external Vision Analysis API: a list of unprocessed analyses, their document files, reports uploaded back."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from PIL import Image, ImageDraw, ImageFont
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import UploadFile
from starlette.responses import JSONResponse, Response

from imgpipe_orchestration.devstack.standins.addresses import FILES
from imgpipe_orchestration.devstack.standins.control import Kind
from imgpipe_orchestration.devstack.standins.wire import Asked, Provider

_AZURE_REFUSAL = (
    '<?xml version="1.0" encoding="utf-8"?><Error><Code>AuthenticationFailed</Code><Message>Server failed to '
    "authenticate the request. Signature not valid in the specified time frame.</Message></Error>"
)
_FINDINGS = ("rust", "a crack", "fouling", "a dent", "peeling paint", "nothing unusual")

_INDEX = "desk.json"


class Seed(BaseModel):
    """What an analysis should be like; every file is made when it is seeded."""

    model_config = ConfigDict(extra="forbid")

    organization_id: str = "38162954-469A-40BC-B619-3E9F71DE6DB9"
    organization_name: str = "LexCorp"
    api_key: str | None = Field(None, description="Only calls with this key see it; none: all do.")
    run_code: str | None = None
    user_query: str = "Analyze these images for defects and anomalies"
    images: int = Field(2, ge=0, le=500)
    files: list[str] = Field(default_factory=list, description="Names of files stored before, taken as images.")
    descriptions: bool = True
    dead_link: bool = False
    expired_sas: bool = False
    sas: bool = False
    document_urls: list[str] = Field(default_factory=list, description="More image documents, anywhere.")


def error(status: int, code: str, message: str) -> dict[str, Any]:
    """The shape of this API's errors, after its good answers."""
    return {"code": status, "status": "error", "message": f"{code}: {message}", "standin": True}


PROVIDER = Provider("vision_analysis", error)
FILES_PROVIDER = Provider("files", error)


@dataclass
class Stored:
    """A file as it is served."""

    content: bytes
    media_type: str


@dataclass
class Desk:
    """The API's own state. Everything but the reports is also kept in `folder`, so a restarted server still has its
    files."""

    folder: Path | None = None
    analyses: list[dict[str, Any]] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)
    files: dict[str, Stored] = field(default_factory=dict)
    reports: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.folder is not None and (index := self.folder / _INDEX).exists():
            kept = json.loads(index.read_text())
            self.analyses, self.keys = kept["analyses"], kept["keys"]
            for name, media_type in kept["files"].items():
                self.files[name] = Stored(self._path(self.folder, name).read_bytes(), media_type)

    def clear(self) -> None:
        """Forget everything."""
        names = list(self.files)
        for kept in (self.analyses, self.keys, self.files, self.reports):
            kept.clear()
        self._keep()
        if self.folder is not None:  # only now: an index must not name what is gone
            for name in names:
                self._path(self.folder, name).unlink(missing_ok=True)

    def add_file(self, name: str, stored: Stored) -> None:
        """Serve a file from now on."""
        self._hold(name, stored)
        self._keep()

    def _hold(self, name: str, stored: Stored) -> None:
        self.files[name] = stored
        if self.folder is not None:
            self._path(self.folder, name).write_bytes(stored.content)

    def _keep(self) -> None:
        if self.folder is None:
            return
        types = {name: stored.media_type for name, stored in self.files.items()}
        whole = self.folder / f"{_INDEX}.new"
        whole.write_text(json.dumps({"analyses": self.analyses, "keys": self.keys, "files": types}))
        whole.replace(self.folder / _INDEX)

    @staticmethod
    def _path(folder: Path, name: str) -> Path:
        return folder / hashlib.sha256(name.encode()).hexdigest()  # a name may be anything

    def seed(self, wanted: Seed, base_url: str) -> dict[str, Any]:
        """Add an analysis with its files; returns it as the API lists it."""
        analysis_id = str(uuid.uuid4()).upper()
        code = wanted.run_code or f"VISION_RUN_{len(self.analyses) + 1:03d}"
        query = _sas(expired=False) if wanted.sas or wanted.expired_sas else ""
        links: list[tuple[str, str, str]] = []
        described: dict[str, str] = {}
        for number in range(wanted.images):
            name = f"{code.lower()}_{number + 1:02d}.jpg"
            self._hold(name, Stored(_inspection(code, number), "image/jpeg"))
            links.append((name, f"{base_url}{FILES}/{quote(name)}{query}", "image"))
            described[name] = f"Section {number + 1}: look for {_FINDINGS[number % len(_FINDINGS)]}"
        for name in wanted.files:
            links.append((name, f"{base_url}{FILES}/{quote(name)}{query}", "image"))
            described[name] = f"Photograph {name}"
        if wanted.dead_link:
            links.append(("gone.jpg", f"{base_url}{FILES}/gone-{analysis_id}.jpg", "image"))
        if wanted.expired_sas:
            name = f"{code.lower()}_expired.jpg"
            self._hold(name, Stored(_inspection(code, 99), "image/jpeg"))
            links.append((name, f"{base_url}{FILES}/{quote(name)}{_sas(expired=True)}", "image"))
        links += [(url.rsplit("/", 1)[-1].split("?")[0] or "document", url, "image") for url in wanted.document_urls]
        if wanted.descriptions:
            name = f"descriptions_{code}.json"
            self._hold(name, Stored(json.dumps(described).encode(), "application/json"))
            links.append((name, f"{base_url}{FILES}/{quote(name)}{query}", "json"))
        analysis = {
            "vision_analysis_id": analysis_id,
            "vision_analysis_run_code": code,
            "is_processed": False,
            "organization_id": wanted.organization_id,
            "organization_name": wanted.organization_name,
            "user_query": wanted.user_query,
            "created_date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "documents": [_document(analysis_id, *link) for link in links],
        }
        self.analyses.append(analysis)
        if wanted.api_key:
            self.keys[analysis_id] = wanted.api_key
        self._keep()
        return analysis

    async def listing(self, asked: Asked) -> Response:
        """GET: a page of analyses."""
        key = _bearer(asked)
        if key is None:
            return JSONResponse(error(401, "unauthorized", "A bearer token is needed"), 401)
        query = asked.request.query_params
        page, size = int(query.get("page", "1")), int(query.get("page_size", "10"))
        processed = query.get("is_processed")
        found = [
            analysis
            for analysis in self.analyses
            if self.keys.get(analysis["vision_analysis_id"], key) == key
            and (processed is None or analysis["is_processed"] == (processed == "true"))
            and query.get("organization_id") in (None, analysis["organization_id"])
        ]
        total = len(found)
        shown = found[max(0, page - 1) * size : max(0, page - 1) * size + size]
        if asked.spoils(Kind.ENDLESS_PAGES):
            total, shown = (page + 1) * size, found[:size]
        data = {"page": page, "page_size": size, "total": total, "vision_analysis": shown}
        return JSONResponse({"code": 200, "status": "success", "data": data, "standin": True})

    async def upload(self, asked: Asked) -> Response:
        """POST: the HTML report of one analysis, which is processed from then on."""
        if _bearer(asked) is None:
            return JSONResponse(error(401, "unauthorized", "A bearer token is needed"), 401)
        async with asked.request.form(max_part_size=64 * 1024 * 1024) as form:
            file = form.get("file")
            fields = {name: str(form.get(name, "")) for name in ("vision_analysis_id", "organization_id")}
            if not isinstance(file, UploadFile):
                return JSONResponse(error(422, "unprocessable", "`file` is missing"), 422)
            content, name = await file.read(), file.filename
        asked.call.note = fields
        analysis = next((a for a in self.analyses if a["vision_analysis_id"] == fields["vision_analysis_id"]), None)
        if analysis is None or analysis["organization_id"] != fields["organization_id"]:
            return JSONResponse(error(404, "not_found", "No such vision analysis in this organization"), 404)
        analysis["is_processed"] = True
        self._keep()
        report = {**fields, "filename": name, "bytes": len(content), "html": content.decode(errors="replace")}
        self.reports.append({**report, "at": time.time()})
        answer = {"vision_analysis_id": fields["vision_analysis_id"], "document_id": str(uuid.uuid4()).upper()}
        return JSONResponse({"code": 200, "status": "success", "data": answer, "standin": True})

    async def file(self, asked: Asked) -> Response:
        """GET: a document file, in parts if asked; 403 once its SAS has expired."""
        if (expiry := asked.request.query_params.get("se")) and _expired(expiry):
            return Response(_AZURE_REFUSAL, 403, media_type="application/xml")
        stored = self.files.get(asked.request.path_params["name"])
        if asked.spoils(Kind.HTML_FILE):
            return Response("<!doctype html><title>Sign in</title><h1>Please sign in</h1>", media_type="text/html")
        if asked.spoils(Kind.HUGE_FILE) and asked.fault is not None:
            return Response(b"\xff\xd8\xff" + bytes(asked.fault.size), media_type="image/jpeg")
        if stored is None:
            return Response("The specified resource does not exist.", 404, media_type="text/plain")
        return Response(stored.content, media_type=stored.media_type)


def _document(analysis_id: str, name: str, url: str, kind: str) -> dict[str, Any]:
    return {
        "vision_analysis_documents_id": str(uuid.uuid4()).upper(),
        "vision_analysis_id": analysis_id,
        "document_id": str(uuid.uuid4()).upper(),
        "document_path": url,
        "document_name": name,
        "is_input": True,
        "document_type": kind,
    }


def _bearer(asked: Asked) -> str | None:
    scheme, _, key = asked.request.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" and key.strip() else None


def _sas(*, expired: bool) -> str:
    """A query such as Azure's shared access signatures have."""
    moment = datetime.fromtimestamp(time.time() + (-86_400 if expired else 86_400), UTC)
    query = {"sv": "2024-11-04", "sr": "b", "sp": "r", "se": moment.strftime("%Y-%m-%dT%H:%M:%SZ")}
    return "?" + urlencode({**query, "sig": "c3RhbmQtaW4tc2lnbmF0dXJlLW5vdC1mb3ItbG9ncw=="})


def _expired(expiry: str) -> bool:
    try:
        return datetime.fromisoformat(expiry).timestamp() < time.time()
    except ValueError:
        return True


def _inspection(code: str, number: int) -> bytes:
    """A drawn hull section with one flaw in it, captioned as drawn."""
    picture = Image.new("RGB", (800, 600), (96 + 8 * (number % 8), 116, 134))
    pen = ImageDraw.Draw(picture)
    for x in range(0, 800, 100):
        pen.line((x, 0, x, 600), fill=(70, 88, 104), width=3)
    x, y = 140 + 97 * number % 520, 120 + 61 * number % 320
    pen.ellipse((x, y, x + 120, y + 80), fill=(150, 76, 36), outline=(90, 40, 20), width=4)
    font = ImageFont.load_default(22)
    pen.text((16, 564), f"{code} section {number + 1} - DRAWN BY A STAND-IN", fill=(255, 255, 255), font=font)
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
