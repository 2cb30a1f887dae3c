"""`python -m imgpipe_orchestration_tests.standins --port N --keep FOLDER`"""

from imgpipe_orchestration.devstack.standins.__main__ import main
from imgpipe_orchestration_tests.standins.app import create_app

if __name__ == "__main__":
    main(create_app)
