"""`earthgptx` with the moments of `tests.chaos.moments` armed in the driver."""

from earthgptx.workflows.cli import main
from tests.chaos.moments import arm

if __name__ == "__main__":
    arm()
    main()
