"""The file formats of the classical data sets. Reading a file runs no code that it holds, whoever made it.

A subset in one of these formats is welcome; torchvision's readers take nothing but the original, byte for byte.
"""

from __future__ import annotations

import gzip
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from nested_lookahead.inputs import at_most, opened

Array = np.ndarray[Any, Any]

LARGEST = 2**29
"""Bytes of a file, and of what it unpacks to: ten times the largest of these data sets."""


def read_idx(path: Path) -> Array:
    """An array of unsigned bytes in LeCun's IDX format, plain or gzipped.

    Raises:
        ValueError: the file is of another format, or shorter or longer than its header says.
    """
    with opened(path, LARGEST) as file:
        if path.suffix == ".gz":
            with gzip.open(file) as unpacked:
                content = at_most(unpacked, LARGEST)
        else:
            content = file.read()
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise ValueError("not an IDX file of unsigned bytes")
    rank = content[3]
    shape = np.frombuffer(content, dtype=">u4", count=rank, offset=4)
    data = np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * rank)
    return data.reshape(shape)


class ArrayUnpickler(pickle.Unpickler):
    """Makes arrays of numbers and Python's own containers, and refuses whatever else a pickle asks for."""

    MAKERS = ("_reconstruct", "ndarray", "dtype")

    def find_class(self, module: str, name: str) -> Any:
        package = module.split(".")[0]
        if package == "numpy" and name in self.MAKERS:
            return {"ndarray": np.ndarray, "dtype": np.dtype}.get(name) or super().find_class(
                "numpy._core.multiarray", name
            )
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes for Python 2
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which such a file has no use for")


def read_cifar(path: Path, labels: str) -> tuple[Array, Array]:
    """Images (n, 3, 32, 32), uint8, and labels (n,) of one of CIFAR's batches, a pickle of Python 2 or 3.

    Args:
        labels: the key of the labels, ``labels`` or ``fine_labels``.

    Raises:
        ValueError, KeyError or pickle.UnpicklingError: the file is of another format.
    """
    with opened(path, LARGEST) as file:
        batch = ArrayUnpickler(file, encoding="latin1").load()
    if not isinstance(batch, dict):
        raise ValueError("not a batch of CIFAR")
    batch = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in batch.items()}
    data, classes = np.asarray(batch["data"]), np.asarray(batch[labels])
    if data.dtype != np.uint8 or classes.dtype.kind not in "iu" or classes.ndim != 1:
        raise ValueError("its data are no bytes, or its labels no integers")
    return data.reshape(-1, 3, 32, 32), classes.astype(np.int64)


def read_svhn(path: Path) -> tuple[Array, Array]:
    """Images (n, 3, 32, 32), uint8, and labels (n,) of SVHN's cropped digits, a file of MATLAB's; 10 stands for 0.

    Raises:
        ValueError or KeyError: the file is of another format.
    """
    from scipy.io import loadmat

    with opened(path, LARGEST) as file:
        content = loadmat(file, variable_names=["X", "y"])
    images, labels = np.asarray(content["X"]), np.asarray(content["y"]).ravel()
    if images.dtype != np.uint8 or images.ndim != 4 or labels.dtype.kind not in "iu":
        raise ValueError("its X is no uint8 array of images, or its y holds no labels")
    labels = labels.astype(np.int64)
    return images.transpose(3, 2, 0, 1), np.where(labels == 10, 0, labels)


def read_arrays(path: Path, names: tuple[str, ...]) -> dict[str, Array]:
    """Arrays of numbers of these names from one of numpy's archives.

    Raises:
        ValueError, KeyError or zipfile.BadZipFile: the file is of another format, or damaged.
        OSError: it is not there, or cannot be read now.
    """
    with opened(path, LARGEST) as file:
        if sum(member.file_size for member in zipfile.ZipFile(file).infolist()) > LARGEST:
            raise ValueError(f"it unpacks to more than {LARGEST:,} bytes")
        file.seek(0)
        with np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in names}
