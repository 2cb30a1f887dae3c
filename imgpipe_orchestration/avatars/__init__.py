"""Avatars: invented people for a brief, each with a selfie and four more pictures of the same face.

The story of one request: `routes` commits a `generation_tasks` row. A data run asks Flowise for people in parallel
batches (`personas`) and commits them as `generation_results` rows. An image run takes each person through the seven
steps of `steps`: prompt, selfie, upload, grid, split, upload, URLs. Both runs are in `work`. Each step commits what it
made, so a killed worker loses only its current step; paid calls go through the ledger (`drawing`), so no picture is
bought twice. `cleanup` removes the images of tasks that were cancelled or failed.
"""
