"""The product's stand-ins with a journal of calls, and faults, delays and rate limits on request.

Tests and benches run this server in place of the product's. The product's app answers; `app` decides beforehand and
`spoiling` afterwards what becomes of an answer.
"""
