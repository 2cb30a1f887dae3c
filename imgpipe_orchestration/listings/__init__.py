"""Listings: a photo uploaded for a listing has its final URL in the answer, and its WebP there moments later.

The story of one image: `routes` takes the upload, `uploads` keeps the original in object storage and commits its row in
`image_queue` together with its place in the queue; the answer names the URL of a WebP that does not exist yet. Until it
does, `serving` answers that URL with the original. The sensor `process_image_queue_sensor` sees that something is due
and asks for a run; `drain` takes batches of ten through `steps` (decode, orient, resize, encode, upload) until the
queue is empty or its time is up. `POST` and `DELETE /api/jobs` start and stop that; uploads are accepted either way.
"""
