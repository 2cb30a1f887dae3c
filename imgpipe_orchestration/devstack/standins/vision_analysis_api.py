"""The external Vision Analysis API: a list of unprocessed analyses, their document files, reports uploaded back."""

import itertools
import json
import mimetypes
import time
import uuid
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Depends, Form, HTTPException, UploadFile
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from imgpipe_orchestration.devstack import photos
from imgpipe_orchestration.devstack.standins import FILES, VISION_ANALYSIS, VISION_ANALYSIS_UPLOAD

_AZURE_REFUSAL = (
    '<?xml version="1.0" encoding="utf-8"?><Error><Code>AuthenticationFailed</Code><Message>Server failed to '
    "authenticate the request. Signature not valid in the specified time frame.</Message></Error>"
)


class Seed(BaseModel):
    """What an analysis should be like; every file is made when it is seeded."""

    model_config = ConfigDict(extra="forbid")

    organization_id: str = "38162954-469A-40BC-B619-3E9F71DE6DB9"
    organization_name: str = "LexCorp"
    run_code: str | None = None
    user_query: str = "Analyze these images for defects and anomalies"
    images: int = Field(2, ge=0, le=500)
    descriptions: bool = True
    dead_link: bool = False
    expired_sas: bool = False
    document_urls: list[str] = Field(default_factory=list, description="More image documents, anywhere.")


class Desk:
    """The API's own state, which ends with the server."""

    def __init__(self) -> None:
        self.reports: list[dict[str, Any]] = []
        self.analyses: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        # Other files after each start, or the ledger would have the answers about them.
        self._photographs = itertools.count(int(time.time()) % 1800)
        self.router, key = APIRouter(), [Depends(HTTPBearer())]
        self.router.get(VISION_ANALYSIS, dependencies=key)(self.listing)
        self.router.post(VISION_ANALYSIS_UPLOAD, dependencies=key)(self.upload)
        self.router.get(FILES + "/{name}")(self.file)
        self.router.post("/_standin/vision-analyses")(self.seed)
        self.router.get("/_standin/reports")(self.uploaded)

    def uploaded(self) -> list[dict[str, Any]]:
        """The reports uploaded so far."""
        return self.reports

    def seed(self, wanted: Seed | list[Seed], request: Request) -> list[dict[str, Any]]:
        """Answers with the analyses as the API lists them."""
        base_url = f"{request.url.scheme}://{request.url.netloc}{FILES}"
        return [self._analysis(seed, base_url) for seed in (wanted if isinstance(wanted, list) else [wanted])]

    def _analysis(self, wanted: Seed, files_url: str) -> dict[str, Any]:
        analysis_id = _id()
        code = wanted.run_code or f"VISION_RUN_{len(self.analyses) + 1:03d}"
        names = [f"{code.lower()}_{number + 1:02d}.jpg" for number in range(wanted.images)]
        signed, expired = _sas(days=1) if wanted.expired_sas else "", f"{code.lower()}_expired.jpg"
        texts = f"descriptions_{code}.json"
        links = [(name, f"{files_url}/{quote(name)}{signed}") for name in names]
        if wanted.dead_link:
            links.append(("gone.jpg", f"{files_url}/gone-{analysis_id}.jpg"))
        if wanted.expired_sas:
            links.append((expired, f"{files_url}/{quote(expired)}{_sas(days=-1)}"))
        links += [(url.rsplit("/", 1)[-1].split("?")[0] or "document", url) for url in wanted.document_urls]
        if wanted.descriptions:
            links.append((texts, f"{files_url}/{quote(texts)}"))
        for name in [*names, expired]:
            self.files[name] = _photograph(next(self._photographs))
        self.files[texts] = json.dumps({name: f"Photograph {name}" for name in names}).encode()
        analysis = {
            "vision_analysis_id": analysis_id,
            "vision_analysis_run_code": code,
            "is_processed": False,
            "organization_id": wanted.organization_id,
            "organization_name": wanted.organization_name,
            "user_query": wanted.user_query,
            "created_date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "documents": [
                {
                    "vision_analysis_documents_id": _id(),
                    "vision_analysis_id": analysis_id,
                    "document_id": _id(),
                    "document_path": url,
                    "document_name": name,
                    "is_input": True,
                    "document_type": "json" if name.endswith(".json") else "image",
                }
                for name, url in links
            ],
        }
        self.analyses.append(analysis)
        return analysis

    def listing(self, page: int = 1, page_size: int = 10, is_processed: bool | None = None) -> dict[str, Any]:
        found = [one for one in self.analyses if is_processed in (None, one["is_processed"])]
        shown = found[max(0, page - 1) * page_size :][:page_size]
        data = {"page": page, "page_size": page_size, "total": len(found), "vision_analysis": shown}
        return {"code": 200, "status": "success", "data": data, "standin": True}

    def upload(
        self,
        file: UploadFile,
        vision_analysis_id: Annotated[str, Form()],
        organization_id: Annotated[str, Form()],
    ) -> dict[str, Any]:
        """The HTML report of one analysis, which is processed from then on."""
        named = {"vision_analysis_id": vision_analysis_id, "organization_id": organization_id}
        analysis = next((one for one in self.analyses if named.items() <= one.items()), None)
        if analysis is None:
            raise HTTPException(404, "No such vision analysis in this organization")
        analysis["is_processed"] = True
        content = file.file.read()
        report = {**named, "filename": file.filename, "bytes": len(content), "html": content.decode(errors="replace")}
        self.reports.append({**report, "at": time.time()})
        answer = {"vision_analysis_id": vision_analysis_id, "document_id": _id()}
        return {"code": 200, "status": "success", "data": answer, "standin": True}

    def file(self, name: str, se: datetime | None = None) -> Response:
        """A document; 403 once its SAS has expired."""
        if se and se < datetime.now(UTC):
            return Response(_AZURE_REFUSAL, 403, media_type="application/xml")
        if name not in self.files:
            return Response("The specified resource does not exist.", 404, media_type="text/plain")
        return Response(self.files[name], media_type=mimetypes.guess_type(name)[0])


def _photograph(number: int) -> bytes:
    """Another JPEG for each number: one of the photographs, in a width of its own."""
    names = sorted(photos.PHOTOS)
    return photos.jpeg(names[number % len(names)], width=800 + number // len(names) % 200)


def _id() -> str:
    return str(uuid.uuid4()).upper()


def _sas(*, days: int) -> str:
    """A query such as Azure's shared access signatures have, which expires in so many days."""
    moment = datetime.fromtimestamp(time.time() + days * 86_400, UTC)
    query = {"sv": "2024-11-04", "sr": "b", "sp": "r", "se": moment.strftime("%Y-%m-%dT%H:%M:%SZ")}
    return "?" + urlencode({**query, "sig": "c3RhbmQtaW4tc2lnbmF0dXJlLW5vdC1mb3ItbG9ncw=="})
