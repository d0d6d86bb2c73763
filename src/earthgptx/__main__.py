"""`python -m earthgptx`: the command line."""

from earthgptx.workflows.cli import main

if __name__ == "__main__":
    main()
