"""What `imgpipe doctor` looks at.

`check` is one check and how it ends; `stores`, `servers` and `partners` are the checks; `doctor` runs
them all.
"""
