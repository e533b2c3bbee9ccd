"""Small data sets in each one's own on-disk format."""

import gzip
import pickle
import struct
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image


class _Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote its strings, as CIFAR's files have them: they load as text or as bytes."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_bytes(self, value):
        short = len(value) < 256
        self.write(b"U" + bytes([len(value)]) if short else b"T" + struct.pack("<i", len(value)))
        self.write(value)
        self.memoize(value)

    dispatch[bytes] = save_bytes


def _images(rng, labels, shape):
    """Noise around one image per class, so that there is something to learn."""
    prototypes = np.random.default_rng(0).integers(0, 256, (100, *shape))
    return np.clip(prototypes[labels] * 0.5 + rng.integers(0, 128, (len(labels), *shape)), 0, 255).astype(np.uint8)


def _labels(rng, n, classes):
    return rng.permutation(np.arange(n) % classes)


def _cifar_batch(path, rng, n, key, classes):
    labels = _labels(rng, n, classes)
    content = {b"data": _images(rng, labels, (3072,)), key: [int(label) for label in labels]}
    with open(path, "wb") as file:
        _Python2Pickler(file, 2).dump(content)
    return content


def make_cifar10(root, per_batch=40, test=40):
    folder = Path(root) / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    for number in range(1, 6):
        _cifar_batch(folder / f"data_batch_{number}", rng, per_batch, b"labels", 10)
    return _cifar_batch(folder / "test_batch", rng, test, b"labels", 10)


def make_cifar100(root, train=400, test=200):
    folder = Path(root) / "cifar-100-python"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    _cifar_batch(folder / "train", rng, train, b"fine_labels", 100)
    return _cifar_batch(folder / "test", rng, test, b"fine_labels", 100)


def _idx(path, array):
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wb") as file:
        file.write(header + array.tobytes())


def make_mnist(root, name="MNIST", train=200, test=40, suffix="", raw=True):
    """Plain files as torchvision leaves them, or gzipped ones as published (and as Debian has them)."""
    folder = Path(root) / name / "raw" if raw else Path(root)
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    made = {}
    for part, n in (("train", train), ("t10k", test)):
        labels = _labels(rng, n, 10).astype(np.uint8)
        images = _images(rng, labels, (28, 28))
        _idx(folder / f"{part}-images-idx3-ubyte{suffix}", images)
        _idx(folder / f"{part}-labels-idx1-ubyte{suffix}", labels)
        made[part] = images, labels
    return made


def make_svhn(root, train=200, test=40):
    from scipy.io import savemat

    Path(root).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    made = {}
    for part, n in (("train", train), ("test", test)):
        labels = _labels(rng, n, 10)
        images = _images(rng, labels, (3, 32, 32))
        stored = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]  # a zero is class 10 there
        savemat(Path(root) / f"{part}_32x32.mat", {"X": images.transpose(2, 3, 1, 0), "y": stored})
        made[part] = images, labels
    return made


def make_image_folder(root, classes=3, train=8, val=4, size=(40, 52)):
    rng = np.random.default_rng(1)
    for part, n in (("train", train), ("val", val)):
        for label in range(classes):
            folder = Path(root) / part / f"n{label:08d}"
            folder.mkdir(parents=True)
            for i in range(n):
                pixels = _images(rng, np.array([label]), (*size, 3))[0]
                Image.fromarray(pixels).save(folder / f"{i}.png")
