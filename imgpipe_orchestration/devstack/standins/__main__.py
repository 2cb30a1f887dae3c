"""`python -m imgpipe_orchestration.devstack.standins --port N --keep FOLDER`"""

import argparse
from collections.abc import Callable
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from imgpipe_orchestration.devstack.ports import LOOPBACK
from imgpipe_orchestration.devstack.standins.app import create_app


def main(create_app: Callable[[Path], Starlette]) -> None:
    """Serve on loopback until told to stop."""
    parser = argparse.ArgumentParser(prog="standins", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--keep", type=Path, required=True, help="where analyses and their files outlive a restart")
    arguments = parser.parse_args()
    uvicorn.run(create_app(arguments.keep), host=LOOPBACK, port=arguments.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main(create_app)
