"""The demo: one module a pipeline, each with a scenario that feeds it as its users do, through HTTP.

Nothing is called directly: the work is done by sensors, the daemon and runs, while `runner` watches. A scenario is a
generator: it feeds its pipeline, yields after each look at how far that is, and leaves what came out in its `Result`.
"""
