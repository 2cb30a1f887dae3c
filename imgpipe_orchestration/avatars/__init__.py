"""Avatars: invented people for a brief, each with a selfie and four more pictures of the same face.

`routes` commits a `generation_tasks` row. A data run asks Flowise for people in parallel batches (`personas`) and
commits them as `generation_results`. An image run takes each person through the seven steps of `steps`: prompt, selfie,
upload, grid, split, upload, URLs. `runs` has both runs. Each step commits its result, so a killed worker loses only its
current step. Paid calls go through the ledger (`drawing`), so no picture is bought twice. `lifecycle` removes the
images of cancelled and failed tasks.
"""
