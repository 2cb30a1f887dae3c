"""`python -m imgpipe_orchestration.devstack.standins --port N [--delay openai.images=0.5 ...] [--keep FOLDER]`"""

from __future__ import annotations

import argparse
from pathlib import Path

import uvicorn

from imgpipe_orchestration.devstack.ports import LOOPBACK
from imgpipe_orchestration.devstack.standins.app import create_app
from imgpipe_orchestration.devstack.standins.control import Control


def main() -> None:
    """Serve on loopback until told to stop."""
    parser = argparse.ArgumentParser(prog="standins", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument(
        "--delay",
        action="append",
        default=[],
        metavar="PROVIDER[.OPERATION]=SECONDS",
        help="fixed time an answer takes, e.g. flowise=0.2 or openai.images=0.5",
    )
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where analyses and their files outlive a restart")
    arguments = parser.parse_args()
    delays = dict(delay.partition("=")[::2] for delay in arguments.delay)
    control = Control({name: float(seconds) for name, seconds in delays.items()})
    app = create_app(control, arguments.keep)
    uvicorn.run(app, host=LOOPBACK, port=arguments.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
