"""One client per outside API, each over the vendor's library where there is one.

A client speaks one protocol, validates what comes back and turns every failure into the error tree, so that callers
know from the type alone whether a retry could help. It decides nothing about money: paid calls go through
`storage.ledger`, which asks the client only for answers nobody has bought yet. `retry` is the one place where calls
are repeated and `rate_limit` the one place where they are held back; the vendors' own retries are switched off.
"""
