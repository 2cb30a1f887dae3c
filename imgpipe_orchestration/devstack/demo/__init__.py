"""The demo: one module a pipeline, each with a `Scenario` that feeds it as its users do, through HTTP.

`imgpipe demo` finds every module here that has a `SCENARIO`, feeds them all, and watches until each has its results or
its time is up. Nothing is called directly: the work is done by sensors, the daemon and runs.
"""
