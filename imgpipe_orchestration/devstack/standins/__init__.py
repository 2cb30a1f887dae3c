"""Stand-ins for the outside APIs: one small server that speaks their real protocols, so that no key is needed.

The production clients run against it unchanged; only base addresses and keys differ. Answers follow deterministically
from requests: colours are measured, JSON follows the requested schema, people are plainly drawn. All answers are
marked: `"standin": true`, a model name that ends in `-standin`, a caption in pictures.

    /openai/v1/...         responses, embeddings, images/generations, images/edits, models      openai_api
    /openai/v1/moderations                                                                      moderation
    /google-vision/v1/...  images:annotate                                                      google_api
    /flowise/api/v1/...    prediction/{flow}: persona-data and image-prompt                      flowise_api
    /vision-analysis/...   the external Vision Analysis API with its document files             vision_analysis_api
    /_standin/...          journal of calls, faults on request, delays, limits, seeds            control
"""
