"""The built-in digits: the promised bytes, sane pictures, and a cache that is never trusted."""

import warnings

import numpy as np
import pytest
import safetensors.numpy
from scipy import ndimage

from flax_mnist.data import synthetic
from flax_mnist.errors import FlaxMnistError, RequestError

SPLITS = {"train": 60_000, "test": 10_000}


@pytest.fixture(scope="module")
def full():
    return synthetic.generate()


@pytest.fixture
def drawn(full, monkeypatch):
    """Have `load` take `full` where it would draw; the list returned grows with each time."""
    calls = []

    def generate():
        calls.append(None)
        return {name: array.copy() for name, array in full.items()}

    monkeypatch.setattr(synthetic, "generate", generate)
    return calls


def same(left, right):
    return left.keys() == right.keys() and all(np.array_equal(left[k], right[k]) for k in left)


def test_the_bytes_are_those_promised(full):
    assert synthetic.digest(full) == synthetic.SHA256


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: arrays["test_labels"].__setitem__(7, arrays["test_labels"][7] ^ 1),
        lambda arrays: arrays.update(extra=arrays["test_labels"]),
        lambda arrays: arrays.update(test_labels=arrays["test_labels"].view(np.int8)),
        lambda arrays: arrays.update(test_labels=arrays["test_labels"][:, None]),
    ],
    ids=["content", "name", "dtype", "shape"],
)
def test_the_digest_covers(change):
    arrays = synthetic.generate(0, 20, 10)
    before = synthetic.digest(arrays)
    change(arrays)
    assert synthetic.digest(arrays) != before


@pytest.mark.parametrize("split", SPLITS)
def test_shapes_dtypes_and_balance(full, split):
    images, labels = full[f"{split}_images"], full[f"{split}_labels"]
    assert (images.shape, images.dtype) == ((SPLITS[split], 28, 28), np.uint8)
    assert (labels.shape, labels.dtype) == ((SPLITS[split],), np.uint8)
    assert np.bincount(labels).tolist() == [SPLITS[split] // 10] * 10


@pytest.mark.parametrize("split", SPLITS)
def test_the_order_is_shuffled(full, split):
    labels = full[f"{split}_labels"].astype(int)
    # Of independent labels, a tenth repeat the one before and a tenth exceed it by one.
    for step in range(10):
        assert 0.08 < np.mean(np.diff(labels) % 10 == step) < 0.12


@pytest.mark.parametrize("split", SPLITS)
def test_bright_strokes_on_a_black_ground(full, split):
    images = full[f"{split}_images"]
    assert not images[:, [0, 0, -1, -1], [0, -1, 0, -1]].any()
    assert np.mean(images[:, [0, -1]].any((1, 2)) | images[:, :, [0, -1]].any((1, 2))) < 0.01
    assert 0.17 < np.mean(images > 0) < 0.22
    assert images.max((1, 2)).min() >= 190
    # Grain leaves full ink between 204 and 255, and an edge as soft as one pixel.
    inside = images[ndimage.grey_erosion(images, (1, 3, 3)) > 150]
    assert np.mean(inside >= 200) > 0.98
    assert 10 < inside.std() < 20
    assert 0.05 < np.mean((images > 0) & (images < 200)) < 0.15


def test_no_two_images_are_alike(full):
    images = {image.tobytes() for split in SPLITS for image in full[f"{split}_images"]}
    assert len(images) == sum(SPLITS.values())


@pytest.mark.parametrize(
    ("digit", "holes"), [(0, 1), (1, 0), (3, 0), (5, 0), (6, 1), (7, 0), (8, 2), (9, 1)]
)
def test_most_of_a_class_have_the_holes_of_its_digit(full, digit, holes):
    images = full["train_images"][full["train_labels"] == digit][:300]
    # The border joins the ground around the digit to one region; each further one is a hole.
    ground = np.pad(images < 100, ((0, 0), (1, 1), (1, 1)), constant_values=True)
    found = [ndimage.label(image)[1] - 1 for image in ground]
    assert np.mean(np.array(found) == holes) > 0.7


def test_ones_hold_the_least_ink_and_every_digit_stands_upright(full):
    mean = {d: full["train_images"][full["train_labels"] == d].mean(0) for d in range(10)}
    assert min(mean, key=lambda d: mean[d].sum()) == 1
    assert mean[7][:14].sum() > 1.1 * mean[7][14:].sum()
    assert mean[6][14:].sum() > 1.1 * mean[6][:14].sum()
    assert mean[9][:14].sum() > 1.1 * mean[9][14:].sum()


def test_class_means_tell_the_digits_apart_but_not_all_of_them(full):
    pixels = {split: full[f"{split}_images"].reshape(-1, 784) / np.float32(255) for split in SPLITS}
    means = [pixels["train"][full["train_labels"] == digit].mean(0) for digit in range(10)]
    squares = [((pixels["test"] - mean) ** 2).sum(1) for mean in means]
    accuracy = np.mean(np.argmin(squares, 0) == full["test_labels"])
    assert 0.7 < accuracy < 0.85  # 0.78 as promised by SHA256


def test_the_seed_decides():
    small = synthetic.generate(3, 40, 30)
    assert same(small, synthetic.generate(3, 40, 30))
    other = synthetic.generate(4, 40, 30)
    for name, array in small.items():
        assert not np.array_equal(array, other[name])
    alike = synthetic.generate(3, 30, 30)
    assert not np.array_equal(alike["train_images"], alike["test_images"])


def test_sizes_that_ten_does_not_divide():
    arrays = synthetic.generate(1, 25, 0)
    assert sorted(np.bincount(arrays["train_labels"], minlength=10)) == [2] * 5 + [3] * 5
    assert arrays["test_images"].shape == (0, 28, 28)


@pytest.mark.parametrize("numbers", [(-1, 10, 10), (0, -10, 10), (0, 10, -10)])
def test_negative_numbers_are_refused(numbers):
    with pytest.raises(RequestError, match="negative"):
        synthetic.generate(*numbers)


def test_the_second_load_reads_what_the_first_wrote(full, drawn, tmp_path):
    first = synthetic.load(tmp_path / "new" / "folder")
    second = synthetic.load(tmp_path / "new" / "folder")
    assert same(first, full)
    assert same(second, full)
    assert len(drawn) == 1
    assert len(list((tmp_path / "new" / "folder").iterdir())) == 1


def test_the_cache_is_in_the_users_folder_unless_given(drawn, monkeypatch, tmp_path):
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / name))
    synthetic.load()
    assert list((tmp_path / "flax-mnist").glob("*.safetensors"))


def flip_a_byte(content):
    return content[:-1000] + bytes([content[-1000] ^ 1]) + content[-999:]


def foreign_dtype():
    header = b'{"train_images": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}'
    return len(header).to_bytes(8, "little") + header + bytes(2)


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_byte,
        lambda content: content[:-1],
        lambda content: content[:100],
        lambda content: b"",
        lambda content: b"<html>" * 1000,
        lambda content: safetensors.numpy.save({"train_images": np.zeros((2, 28, 28), np.uint8)}),
        lambda content: content.replace(b'"U8"', b'"I8"', 1),
        lambda content: content.replace(b'"U8"', b'"F4"', 1),
        lambda content: foreign_dtype(),
    ],
    ids=[
        "flipped",
        "shortened",
        "header",
        "empty",
        "html",
        "other",
        "dtype",
        "half-bytes",
        "foreign-dtype",
    ],
)
def test_a_damaged_cache_is_drawn_again_with_a_warning(full, drawn, tmp_path, damage):
    synthetic.load(tmp_path)
    [path] = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(UserWarning, match=path.name):
        assert same(synthetic.load(tmp_path), full)
    assert len(drawn) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(synthetic.load(tmp_path), full)
    assert len(drawn) == 2


def test_an_unreadable_cache_is_drawn_again_with_a_warning(full, drawn, tmp_path):
    synthetic.load(tmp_path)
    [path] = tmp_path.iterdir()
    path.unlink()
    path.mkdir()
    with pytest.warns(UserWarning, match=path.name):
        assert same(synthetic.load(tmp_path), full)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("folder", ["file", "file/below"])
def test_a_folder_that_cannot_be_written_costs_only_the_cache(full, drawn, tmp_path, folder):
    (tmp_path / "file").write_text("in the way")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(synthetic.load(tmp_path / folder), full)
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_write_that_breaks_off_leaves_nothing_behind(full, drawn, monkeypatch, tmp_path):
    def replace(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", replace)
    assert same(synthetic.load(tmp_path), full)
    assert not list(tmp_path.iterdir())


def test_other_bytes_than_promised_are_an_error_and_not_cached(full, monkeypatch, tmp_path):
    wrong = {**full, "test_labels": full["test_labels"] ^ 1}
    monkeypatch.setattr(synthetic, "generate", lambda: wrong)
    with pytest.raises(FlaxMnistError, match=synthetic.SHA256) as caught:
        synthetic.load(tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
