"""The demo: one module a pipeline, each with a `Scenario` that feeds it as its users do, through HTTP.

Nothing is called directly: the work is done by sensors, the daemon and runs, while `runner` watches.
"""
