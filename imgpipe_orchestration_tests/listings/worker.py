"""A worker as a process of its own, for tests that kill it: `python -m ... OWNER`, settings from the environment."""

from __future__ import annotations

import sys

from imgpipe_orchestration.listings import drain
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.settings import load

if __name__ == "__main__":
    drain.run(Services(load()), sys.argv[1])
