"""The page in a browser: that its canvas and its network do what Python does.

The browser is whichever Chromium or Chrome is on the PATH; none is ever downloaded.
"""

from __future__ import annotations

import base64
import io
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flax_mnist import Config, init_state, predict
from flax_mnist.model import MLP, make_model
from flax_mnist.pictures.reading import read_image
from tests.helpers.pages import render
from tests.helpers.pictures import fitted

# Each would run, end the element it stands in, or be taken for a blank or a formula.
HOSTILE = (
    "</title></h1></script><script>window.hacked = 1</script><!--<script>",
    '"\'><img src="x:" onerror="window.hacked = 2">&amp;$title $$ ${x} $\\frac{\u2028',
)

SEVEN = [(0.25, 0.2), (0.75, 0.2), (0.45, 0.8)]
ONE = [(0.5, 0.15), (0.5, 0.85)]
SMALL_TWO = [(0.1, 0.15), (0.2, 0.1), (0.28, 0.18), (0.1, 0.4), (0.3, 0.41)]
DOT = [(0.7, 0.6)]
SLANTED = [(0.9, 0.1), (0.32, 0.77)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(names)} is on the PATH")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    flags = (
        "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
        "--disable-background-networking --disable-component-update"
    )
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=flags.split())
        yield browser
        browser.close()


@pytest.fixture
def visit(browser) -> Iterator[Any]:
    """Opens a file; afterwards nothing else may have been asked for, and nothing complained of."""
    context = browser.new_context(has_touch=True)
    asked: list[str] = []
    said: list[str] = []

    def visit(path: Path) -> Any:
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(path.as_uri())
        page.wait_for_function("window.flaxMnist")
        return page

    yield visit
    context.close()
    assert said == []
    assert all(url.startswith("data:") for url in asked[1:]), asked
    assert asked[0].startswith("file:")


def draw(page: Any, points: list[tuple[float, float]]) -> None:
    """A stroke of the mouse through points of the canvas, 0 to 1 in each direction."""
    box = page.locator("#drawing").bounding_box()
    first, *others = [
        (box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points
    ]
    page.mouse.move(*first)
    page.mouse.down()
    for point in others:
        page.mouse.move(*point, steps=3)
    page.mouse.up()
    settle(page)


def settle(page: Any) -> None:
    """Waits until what was drawn is shown."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")


def picture(page: Any, canvas: str) -> bytes:
    """A canvas as PNG."""
    url = page.evaluate("(id) => document.getElementById(id).toDataURL('image/png')", canvas)
    return base64.b64decode(url.partition(",")[2])


def seen(page: Any) -> np.ndarray:
    """The 28x28 beside the drawing."""
    rgba = np.asarray(Image.open(io.BytesIO(picture(page, "seen"))))
    assert rgba.shape == (28, 28, 4)
    assert (rgba[..., :3] == rgba[..., :1]).all()
    return rgba[..., 0]


def shown_probabilities(page: Any) -> list[float]:
    values = page.evaluate("() => Array.from(document.querySelectorAll('data'), (d) => d.value)")
    return [float(value) for value in values]


@pytest.mark.parametrize("network", ["trained", "of another shape"])
def test_the_network_in_the_page_is_predict(
    visit, page_file, params, unusual, unusual_file, digits, network
):
    """Largest difference in ten probabilities: 1e-5, some twenty float32 rounding errors."""
    config = Config()
    if network == "of another shape":
        page_file, params = unusual_file, init_state(unusual).params
        config = Config(hidden_sizes=unusual.hidden_sizes)  # the page does not round to bfloat16
    noise = np.random.default_rng(0).integers(0, 256, (2, 28, 28), np.uint8)
    flat = np.stack([np.zeros((28, 28), np.uint8), np.full((28, 28), 255, np.uint8)])
    images = np.concatenate([digits["test_images"][:20], noise, flat])
    theirs = visit(page_file).evaluate(
        "(images) => images.map((image) => Array.from(flaxMnist.predict(Uint8Array.from(image))))",
        images.reshape(len(images), -1).tolist(),
    )
    ours = predict(params, images, model=make_model(config))
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-5)


def test_a_drawing_is_seen_as_python_sees_it(visit, page_file, params, tmp_path):
    page = visit(page_file)
    for strokes in ([SEVEN], [ONE], [SMALL_TWO], [DOT], [SLANTED], [SEVEN, ONE, DOT]):
        for stroke in strokes:
            draw(page, stroke)
        image = seen(page)
        (tmp_path / "drawn.png").write_bytes(picture(page, "drawing"))
        expected = fitted(tmp_path / "drawn.png")
        # From version 13 on Pillow scales slim pictures first vertically, then horizontally: the
        # filter's overshoot is cut off elsewhere. Of 255 grey levels a third differs on average.
        difference = np.abs(image.astype(float) - expected)
        assert difference.max() <= 20
        assert difference.mean() <= 0.3
        if DOT not in strokes:  # which is no digit on a picture
            found = read_image(tmp_path / "drawn.png")
            assert np.corrcoef(image.ravel(), found.ravel())[0, 1] > 0.8

        probabilities, theirs = np.asarray(
            predict(params, np.stack([image, expected]), model=MLP())
        )
        np.testing.assert_allclose(shown_probabilities(page), probabilities, rtol=0, atol=1e-5)
        likeliest = str(theirs.argmax())
        assert page.inner_text("#verdict") == f"Likeliest: {likeliest}"
        assert page.locator(".likeliest th").all_inner_texts() == [likeliest]
        page.click("#clear")


def test_bars_and_percentages_are_the_probabilities(visit, page_file):
    page = visit(page_file)
    draw(page, SEVEN)
    probabilities = np.array(shown_probabilities(page))
    assert probabilities.sum() == pytest.approx(1)
    assert page.locator("data").all_inner_texts() == [f"{100 * p:.1f}%" for p in probabilities]
    widths = page.evaluate("() => Array.from(document.querySelectorAll('i'), (i) => i.offsetWidth)")
    full = page.evaluate("() => document.querySelector('i').parentElement.offsetWidth")
    np.testing.assert_allclose(widths, full * probabilities, rtol=0, atol=1)


@pytest.mark.parametrize("how", ["mouse", "keyboard"])
def test_clear(visit, page_file, how):
    page = visit(page_file)
    untouched = page.locator("#try").inner_text()
    assert "Nothing drawn yet" in untouched
    draw(page, SEVEN)
    assert page.locator("#try").inner_text() != untouched
    if how == "mouse":
        page.click("#clear")
    else:
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
    assert page.locator("#try").inner_text() == untouched
    assert shown_probabilities(page) == [0] * 10
    assert not seen(page).any()
    draw(page, DOT)  # and it can be drawn on again
    assert seen(page).any()


def test_a_finger_draws(visit, page_file):
    page = visit(page_file)
    box = page.locator("#drawing").bounding_box()
    page.touchscreen.tap(box["x"] + 100, box["y"] + 100)
    settle(page)
    assert page.inner_text("#verdict").startswith("Likeliest: ")
    assert seen(page).any()


def test_a_mouse_that_only_passes_draws_nothing(visit, page_file):
    page = visit(page_file)
    box = page.locator("#drawing").bounding_box()
    page.mouse.move(box["x"] + 50, box["y"] + 50)
    page.mouse.move(box["x"] + 150, box["y"] + 150, steps=5)
    settle(page)
    assert not seen(page).any()


def test_hostile_names_are_only_text(visit, digits, tmp_path):
    names = [f"{i}{HOSTILE[i % 2]}" for i in range(10)]
    environment = {HOSTILE[0]: HOSTILE[1], "command": list(HOSTILE), "nested": {"a": HOSTILE}}
    path = tmp_path / "hostile.html"
    path.write_text(
        render(digits, name="".join(HOSTILE), class_names=names, environment=environment), "utf-8"
    )
    page = visit(path)
    draw(page, SEVEN)
    assert page.evaluate("() => window.hacked") is None
    assert page.locator("h1").text_content() == "".join(HOSTILE)
    assert page.locator(".bars th").all_text_contents() == names
    assert page.locator("script").count() == 2
    assert HOSTILE[1] in page.locator(".settings td").all_text_contents()


def test_no_other_script_would_run(browser, page_file):
    """Were something not escaped, the page's policy would still stop it."""
    page = browser.new_page()
    page.goto(page_file.as_uri())
    page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.hacked = 1";
            document.body.append(script);
        }"""
    )
    assert page.evaluate("() => window.hacked") is None
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_figure_that_is_cut_off_says_that_it_scrolls(visit, page_file, scheme):
    page = visit(page_file)
    page.emulate_media(color_scheme=scheme)
    for width, cut in ((360, True), (1100, False)):
        page.set_viewport_size({"width": width, "height": 700})
        for section in page.locator("section:has(.figure)").all():
            figure = section.locator(".figure")
            beyond = figure.evaluate("(box) => box.scrollWidth > box.clientWidth")
            said = section.locator(".sideways:visible").count() == 1
            assert said == beyond
            assert beyond == (cut and "Calibration" not in section.inner_text())
            assert figure.evaluate("(box) => (box.scrollLeft = 50, box.scrollLeft)") == 50 * beyond


def test_a_click_takes_the_whole_command(visit, digits, tmp_path):
    command = ["train", "--epochs", "30", "--hidden-sizes", *["128"] * 30, "--run-dir", "a run"]
    path = tmp_path / "report.html"
    path.write_text(render(digits, environment={"command": command}), "utf-8")
    page = visit(path)
    page.set_viewport_size({"width": 360, "height": 700})
    page.click("pre")
    selected = page.evaluate("() => getSelection().toString()")
    assert shlex.split(selected) == ["flax-mnist", *command]


def test_it_fits_the_screen(visit, page_file):
    page = visit(page_file)
    for width in (320, 390, 800, 1200):
        page.set_viewport_size({"width": width, "height": 700})
        assert page.evaluate("() => document.documentElement.scrollWidth") == width
