"""Media: a photo uploaded to a profile becomes six sizes in three formats at one smart URL.

`routes` accepts an upload (`PATCH /users/me`), stores its bytes under a temp path and commits a `pending_images` row. A
sensor sees the row and asks for a run. The run registers the image (`intake`), then takes it through the five steps in
`steps/`: retrieve_file, ai_visual_analysis, resize_optimize, update_callback, replace_urls. `serving` answers requests
for the image at all times.
"""
