"""Pictures of the first layer's weights: that they show the weights they were given."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from flax_mnist.show.figures import save
from flax_mnist.show.kernels import draw_weights, save_weights_gif

# A layout that does not fit, a division by zero or a missing glyph is a failure.
pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.parametrize(("units", "shape"), [(1, (1, 1)), (20, (2, 16)), (300, (16, 16))])
def test_each_unit_has_its_picture(units, shape, tmp_path):
    kernel = np.random.default_rng(0).normal(size=(784, units))
    figure = draw_weights(kernel)
    save(figure, tmp_path / "weights.png")
    axes = figure.axes[0]
    (picture,) = axes.images
    low, high = picture.get_clim()
    assert low == -high < 0
    mosaic = np.ma.filled(picture.get_array(), np.nan)
    assert mosaic.shape == (29 * shape[0] - 1, 29 * shape[1] - 1)
    for unit in range(min(units, 256)):
        row, column = divmod(unit, shape[1])
        tile = mosaic[29 * row : 29 * row + 28, 29 * column : 29 * column + 28]
        np.testing.assert_array_equal(tile.ravel(), kernel[:, unit])
    assert np.isfinite(mosaic).sum() == 784 * min(units, 256)
    assert ("the first 256 of 300" in axes.get_title()) == (units == 300)


def test_weights_that_are_all_zero_can_be_drawn(tmp_path):
    save(draw_weights(np.zeros((784, 3))), tmp_path / "weights.png")


def test_the_gif_has_a_frame_an_epoch_on_one_scale(tmp_path):
    # One strong unit among many faint ones: were each frame's scale its own, its red would be as
    # strong in the first one.
    faint = np.random.default_rng(0).normal(scale=0.01, size=(784, 127))
    kernels = {
        epoch: np.concatenate([np.full((784, 1), value), faint], axis=1)
        for epoch, value in ((0, 0.1), (5, 0.2), (6, -0.2))
    }
    save_weights_gif(kernels, tmp_path / "weights.gif")
    with Image.open(tmp_path / "weights.gif") as gif:
        assert (gif.format, gif.n_frames, gif.info["loop"]) == ("GIF", 3, 0)
        assert gif.size == (698, 345)
        colours, durations = [], []
        for i in range(3):
            gif.seek(i)
            durations.append(gif.info["duration"])
            frame = np.asarray(gif.convert("RGB"))
            colours.append(frame[47, 50].astype(int))
            assert len(np.unique(frame[:, 635], axis=0)) > 50  # down the colour bar
    assert durations == [500, 500, 3000]  # it rests on the last one
    assert (tmp_path / "weights.gif").stat().st_size < 80_000 * 3
    (faint_red, faint_green, _), (red, green, _), (_, _, blue) = colours
    assert faint_red > faint_green > green
    assert red > 2 * green
    assert blue > 2 * colours[2][0]
    # ColorBrewer's RdBu, https://colorbrewer2.org, to within the steps of the palette: its end, and
    # the middle between its second and its third red.
    np.testing.assert_allclose(colours[1], (103, 0, 31), atol=4)
    np.testing.assert_allclose(colours[0], (229, 131, 104), atol=4)
