"""What a process holds: connections and clients for all outside systems, made from the settings at their first use.

`services` makes them; the gateway has one `Services`, and so has a Dagster run, in its resources.
"""
