"""Who may do what, and who did it: roles, named keys, sign-in by OpenID Connect, and the audit.

`model` says who a caller is. `keys` are for machines and `oidc` is for people. `audit` writes one row for each change,
in the transaction of the change. Which route needs which role is in `web.access`.
"""
