"""What the idle stack is measured against: Dagster with sensors that look for nothing as often as ours look for work.

SENSOR_SECONDS has their intervals, separated by commas.
"""

import os

import dagster as dg


@dg.job
def nothing() -> None:
    """The sensors' job, which they never start."""


def _sensor(number: int, seconds: int) -> dg.SensorDefinition:
    running = dg.DefaultSensorStatus.RUNNING

    @dg.sensor(name=f"sensor_{number}", job=nothing, minimum_interval_seconds=seconds, default_status=running)
    def look() -> dg.SkipReason:
        return dg.SkipReason("nothing to do")

    return look


intervals = os.environ["SENSOR_SECONDS"].split(",")
defs = dg.Definitions(jobs=[nothing], sensors=[_sensor(number, int(each)) for number, each in enumerate(intervals)])
