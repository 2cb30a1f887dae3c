"""`python -m imgpipe_orchestration_tests.standins --port N --keep FOLDER`"""

from __future__ import annotations

import argparse
from pathlib import Path

import uvicorn

from imgpipe_orchestration.devstack.ports import LOOPBACK
from imgpipe_orchestration_tests.standins.app import create_app

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="standins", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--keep", type=Path, required=True)
    arguments = parser.parse_args()
    uvicorn.run(create_app(arguments.keep), host=LOOPBACK, port=arguments.port, log_level="warning", access_log=False)
