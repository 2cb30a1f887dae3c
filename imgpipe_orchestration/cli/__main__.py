"""`python -m imgpipe_orchestration.cli`: the command where only the interpreter is known, not the folder of scripts."""

from imgpipe_orchestration.cli import main

main()
