"""Listings: the answer to an upload has the final URL of each photo; its WebP is served there moments later.

The story of one image: `routes` takes the upload, `uploads` stores the original and commits its row in `image_queue`
together with its queue item; the answer names the URL of a WebP that does not exist yet. Until it does, `serving`
answers that URL with the original. The sensor `process_image_queue_sensor` asks for a run when something is due;
`drain` takes batches of ten through `steps` (decode, orient, resize, encode, upload) until the queue is empty or its
time is up. `POST` and `DELETE /api/jobs` start and stop that job; uploads are accepted either way.
"""
