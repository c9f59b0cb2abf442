"""How far apart the two programs may be, and why so far."""

import numpy as np

from flax_mnist.config import Precision

#: ulps: an input is one correctly rounded quotient, so both must have the very same bits.
INPUTS = 0
#: ulps: the frameworks sum 784, 128 and 64 products in different orders; 10 times what is seen.
FORWARD = 64
LOSS = 16  #: ulps, relative: an exponential, a logarithm and a mean, each good to an ulp or two.
#: ulps of each gradient's largest entry: the same sums as forward, and 64 images more.
GRADIENTS = 64
#: ulps: weights differ by 0.003 of what gradients do, losses of 2.3 by a rounding or two.
STEP = 16
#: Roundings add up to 1e-15; a learning rate wrong by 1e-8 of it makes 3e-11 in 51 steps.
EPOCHS_FLOAT64 = 1e-12
#: Times the larger own drift: two that stray from one path are at most the sum of both apart.
EPOCHS_FLOAT32 = 2.0
#: Times the other's: both round to 24 bits; with bfloat16 products it is 900 times.
OWN_DRIFTS = 10.0
#: Nats: the standard deviation between seeds in 10 earlier runs of PyTorch, 0.0035, rounded up.
#:
#: Fixed, like the next, before the runs that it judges (in which that deviation is 0.005).
TEST_LOSS_MARGIN = 0.004
TEST_ACCURACY_MARGIN = 0.002  #: Likewise: it was 0.18 percentage points.
ALPHA = 0.05  #: Of each of the two one-sided tests: the usual level.


def ulps(n: float, precision: Precision) -> float:
    """`n` units in the last place of a number from 1 to 2."""
    return n * float(np.finfo(precision).eps)
