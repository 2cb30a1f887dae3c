"""Stand-ins for the outside APIs: one small server that speaks their real protocols, so that no key is needed.

The production clients run against it unchanged; only base addresses and keys differ. Answers follow deterministically
from requests: colours are measured, JSON follows the requested schema, people are plainly drawn. All answers are
marked: `"standin": true`, a model name that ends in `-standin`, a caption in pictures.

    /openai/v1/...         responses, embeddings, images, moderations, models       openai_api, openai_batches
    /google-vision/v1/...  images:annotate                                          google_api
    /flowise/api/v1/...    prediction/{flow}: persona-data and image-prompt         flowise_api
    /vision-analysis/...   the external Vision Analysis API with its files          vision_analysis_api
    /_standin/...          what this last one lists, and what was uploaded to it    vision_analysis_api
"""

# The paths under which each partner is played; `devstack/plan.py` puts them into the settings.
OPENAI = "/openai/v1"
GOOGLE = "/google-vision"
FLOWISE = "/flowise"
VISION_ANALYSIS = "/vision-analysis/api/v1/documents/vision_analysis"
VISION_ANALYSIS_UPLOAD = VISION_ANALYSIS + "/upload"
FILES = "/vision-analysis/files"
