"""Where the program starts: `flax-mnist` and `python -m flax_mnist`."""

import sys

from flax_mnist.runs import signals


def main() -> int:
    """Runs the command line of the process and returns its exit code."""
    signals.watch()  # before all that takes long to import
    from flax_mnist.cli.main import main

    return main()


if __name__ == "__main__":
    sys.exit(main())
