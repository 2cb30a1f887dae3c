"""The paths under which each partner is played. `devstack/plan.py` puts them into the settings."""

from __future__ import annotations

OPENAI = "/openai/v1"
GOOGLE = "/google-vision"
FLOWISE = "/flowise"
VISION_ANALYSIS = "/vision-analysis/api/v1/documents/vision_analysis"
VISION_ANALYSIS_UPLOAD = VISION_ANALYSIS + "/upload"
FILES = "/vision-analysis/files"
