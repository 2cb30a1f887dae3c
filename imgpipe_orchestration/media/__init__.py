"""Media: a photo uploaded to a profile becomes six sizes in three formats at one smart URL.

The story of one image: `routes` takes the upload (`PATCH /users/me`), keeps the bytes under its temp path and commits a
`pending_images` row. A sensor sees the row and asks for a run. The run registers the image (`intake`), then takes it
through the five stages of `steps/`: retrieve_file, ai_visual_analysis, resize_optimize, update_callback, replace_urls.
`serving` answers for the image from its first second to its last.
"""
