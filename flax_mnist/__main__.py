"""`python -m flax_mnist`."""

import sys

from flax_mnist.cli import main

sys.exit(main())
