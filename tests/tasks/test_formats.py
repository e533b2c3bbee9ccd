"""Files in others' formats: read without running what they hold, waiting for them, or filling the memory."""

import gzip
import os
import pickle
import zipfile

import made_data
import numpy as np
import pytest

from nested_lookahead.errors import UserError
from nested_lookahead.tasks import datasets, formats


class Payload:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("inside", ["alone", "beside the data", "as a key"])
def test_a_pickle_that_would_run_code_is_refused(tmp_path, protocol, inside):
    made_data.make_cifar10(tmp_path)
    trace = tmp_path / "was here"
    bad = Payload(os.mkdir, f"{trace}")
    content = {"alone": bad, "beside the data": {b"data": [1], "x": bad}, "as a key": {bad: 1}}[inside]
    (tmp_path / "cifar-10-batches-py/data_batch_2").write_bytes(pickle.dumps(content, protocol))
    with pytest.raises(UserError, match=r"data_batch_2 is broken \(it asks for posix.mkdir, which such a file"):
        datasets.cifar10(str(tmp_path), download=False)
    assert not trace.exists()


@pytest.mark.parametrize("call", [eval, getattr, np.load, np.fromfile, pickle.loads, np.memmap])
def test_no_other_function_is_made(tmp_path, call):
    path = tmp_path / "batch"
    path.write_bytes(pickle.dumps({"data": Payload(call, "x"), "labels": [1]}, 2))
    with pytest.raises(pickle.UnpicklingError, match="which such a file has no use for"):
        formats.read_cifar(path, "labels")


def test_arrays_of_objects_stay_data(tmp_path):
    path = tmp_path / "batch"
    path.write_bytes(pickle.dumps({"data": np.array([{}], dtype=object), "labels": [1]}, 2))
    with pytest.raises(ValueError, match="its data are no bytes"):
        formats.read_cifar(path, "labels")


READERS = {
    "idx": formats.read_idx,
    "cifar": lambda path: formats.read_cifar(path, "labels"),
    "svhn": formats.read_svhn,
    "arrays": lambda path: formats.read_arrays(path, ("x",)),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_what_is_no_file_is_not_waited_for(tmp_path, read, make):
    make(tmp_path / "x")
    with pytest.raises(ValueError, match="x is no regular file"):
        read(tmp_path / "x")


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch, read):
    monkeypatch.setattr(formats, "LARGEST", 99)
    (tmp_path / "x").write_bytes(bytes(100))
    with pytest.raises(ValueError, match="x has 100 bytes, and can have 99"):
        read(tmp_path / "x")


def test_what_unpacks_to_too_much_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "LARGEST", 2000)
    (tmp_path / "x.gz").write_bytes(gzip.compress(bytes(2001)))
    with pytest.raises(ValueError, match="it unpacks to more than 2,000 bytes"):
        formats.read_idx(tmp_path / "x.gz")
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros(2000, np.uint8))
    with pytest.raises(ValueError, match="it unpacks to more than 2,000 bytes"):
        formats.read_arrays(tmp_path / "x.npz", ("x",))
    with zipfile.ZipFile(tmp_path / "x.npz") as archive:
        assert archive.infolist()[0].compress_size < 2000
