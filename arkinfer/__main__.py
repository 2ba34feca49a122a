"""``python -m arkinfer`` is the ``arkinfer`` command."""

import sys

from arkinfer.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
