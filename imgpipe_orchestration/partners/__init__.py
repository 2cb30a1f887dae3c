"""One client per outside API, each over the vendor's library where there is one.

A client speaks one protocol, validates answers and turns every failure into an error of our tree, so that callers know
from the type whether a retry could help. Spending is decided elsewhere: paid calls go through `billing.ledger`, which
asks the client only for answers that nobody has bought yet. Calls are repeated and held back only by `retry`; the
vendors' own retries are switched off.
"""
