"""The stack on one machine: real servers from PyPI, stand-in partners, the gateway and Dagster, supervised.

A `Part` (`process.py`) is one child process: how to start it, whether it answers, how to end it. Its subclasses are in
`postgres`, `s3`, `mongo` and `services`. `plan` decides by the settings which parts are needed (a setting that names a
real service replaces its part); `supervisor` keeps them alive. Tests use the same parts directly.
"""
