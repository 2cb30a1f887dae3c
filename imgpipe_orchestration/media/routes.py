"""The media pipeline's HTTP surface."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter()
