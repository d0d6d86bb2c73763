"""`earthgptx` with the moments of `tests.chaos.moments` armed in the driver."""

import signal

from earthgptx.workflows.cli import main
from tests.chaos.moments import arm

if __name__ == "__main__":
    # A shell ignores it for what it starts in the background, the tests for example.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    arm()
    main()
