"""Listings: an upload's answer has the final URL of each photo; its WebP appears there moments later.

`routes` takes the upload. `uploads` stores the original and commits its row in `image_queue` with a queue item. Until
the WebP exists, `serving` answers its URL with the original. `process_image_queue_sensor` asks for a run when something
is due; a run (`runs`) takes batches through `steps` (decode, orient, resize, encode, upload) until the queue is empty
or the time is up. `POST` and `DELETE /api/jobs` start and stop that job; uploads are accepted either way.
"""
