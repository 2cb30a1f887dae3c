"""The stack on one machine: real servers from PyPI, stand-in partners, the gateway and Dagster, supervised.

A `Part` (`process.py`) is one child process: how to start it, how to tell that it answers, how to end it. `postgres`,
`s3`, `mongo` and `services` say this for each part; `plan` decides from the settings which parts are needed (a setting
that names a real service replaces its part); `supervisor` keeps them alive. Tests use the same parts directly.
"""
