"""Data sets in their own formats, and what happens when one cannot be had."""

import multiprocessing
import os
import random
import time
from pathlib import Path

import made_data
import numpy as np
import pytest
import torch

from nested_lookahead.errors import UserError
from nested_lookahead.settings import Split
from nested_lookahead.tasks import datasets
from nested_lookahead.tasks.data import Source, TensorSamples, split_source


def same_images(split, images, labels):
    assert split.images.dtype == torch.uint8
    np.testing.assert_array_equal(split.images.numpy(), images)
    np.testing.assert_array_equal(split.labels.numpy(), labels)


def test_cifar10(tmp_path):
    test = made_data.make_cifar10(tmp_path)
    source = datasets.cifar10(str(tmp_path), download=False)
    assert source.train.images.shape == (200, 3, 32, 32)
    same_images(source.test, test[b"data"].reshape(-1, 3, 32, 32), test[b"labels"])


def test_cifar100(tmp_path):
    test = made_data.make_cifar100(tmp_path)
    source = datasets.cifar100(str(tmp_path), download=False)
    assert (source.num_classes, len(source.train)) == (100, 400)
    same_images(source.test, test[b"data"].reshape(-1, 3, 32, 32), test[b"fine_labels"])


def test_svhn_calls_a_zero_class_0(tmp_path):
    made = made_data.make_svhn(tmp_path)
    source = datasets.svhn(str(tmp_path), download=False)
    same_images(source.train, *made["train"])
    same_images(source.test, *made["test"])


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mnist_plain_and_gzipped(tmp_path, suffix):
    made = made_data.make_mnist(tmp_path, suffix=suffix)
    source = datasets.mnist(str(tmp_path), download=False)
    same_images(source.train, made["train"][0][:, None], made["train"][1])
    same_images(source.test, made["t10k"][0][:, None], made["t10k"][1])


def test_idx_files_read_as_torchvision_reads_them(tmp_path):
    from torchvision.datasets.mnist import read_image_file

    made_data.make_mnist(tmp_path)
    path = tmp_path / "MNIST/raw/train-images-idx3-ubyte"
    np.testing.assert_array_equal(datasets.read_idx(path), read_image_file(str(path)).numpy())


def test_fashion_mnist_comes_from_debians_package_unless_data_dir_has_it(tmp_path, monkeypatch):
    made = made_data.make_mnist(tmp_path / "debian", suffix=".gz", raw=False)
    monkeypatch.setattr(datasets, "DEBIAN_FASHION_MNIST", tmp_path / "debian")
    source = datasets.fashion_mnist(str(tmp_path / "data"), download=False)
    same_images(source.test, made["t10k"][0][:, None], made["t10k"][1])
    assert not (tmp_path / "data").exists()
    made_data.make_mnist(tmp_path / "data", name="FashionMNIST", train=70)
    assert len(datasets.fashion_mnist(str(tmp_path / "data"), download=False).train) == 70


@pytest.mark.skipif(not datasets.DEBIAN_FASHION_MNIST.exists(), reason="needs Debian's dataset-fashion-mnist")
def test_the_real_fashion_mnist():
    source = datasets.fashion_mnist("nowhere", download=False)
    assert source.train.images.shape == (60000, 1, 28, 28)
    assert torch.bincount(source.test.labels).tolist() == [1000] * 10
    assert round(source.train.images.double().mean().item() / 255, 4) == 0.2860  # as published


@pytest.mark.slow
def test_mnist1d_is_the_published_one_and_is_kept(tmp_path):
    state = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    source = datasets.mnist1d(str(tmp_path))
    assert (random.getstate(), np.random.get_state()[1].tolist()) == (state[0], state[1].tolist())  # noqa: NPY002
    assert source.train.images.shape == (4000, 1, 40)
    assert source.test.images.shape == (1000, 1, 40)
    assert source.train.labels[:10].tolist() == [2, 6, 4, 5, 6, 6, 6, 0, 3, 1]
    assert source.train.images[0, 0, :3].tolist() == pytest.approx([-0.332006, -0.471910, -0.778697], abs=1e-5)
    cache = tmp_path / "mnist1d.npz"
    written = cache.stat().st_mtime_ns
    again = datasets.mnist1d(str(tmp_path))
    assert torch.equal(again.train.images, source.train.images)
    assert cache.stat().st_mtime_ns == written
    assert [path.name for path in tmp_path.iterdir()] == ["mnist1d.npz"]


def test_a_torn_file_of_mnist1d_is_made_anew(tmp_path):
    source = datasets.mnist1d(str(tmp_path), 100, 50)
    (cache,) = tmp_path.iterdir()
    whole = cache.read_bytes()
    cache.write_bytes(whole[: len(whole) // 2])
    assert torch.equal(datasets.mnist1d(str(tmp_path), 100, 50).train.images, source.train.images)
    assert cache.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [cache]


def test_mnist1d_without_a_folder_to_write_to():
    assert len(datasets.mnist1d("/proc/nowhere", 100, 50).train) == 100


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100", "svhn"])
def test_a_missing_set_says_what_where_and_how(name, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "DEBIAN_FASHION_MNIST", tmp_path / "debian")
    with pytest.raises(UserError) as error:
        getattr(datasets, name)(str(tmp_path / "data"), download=False)
    message = str(error.value)
    assert message.startswith(f"dataset={name}: ")
    assert f"is missing (looked in {tmp_path / 'data'})" in message
    assert "set dataset.data_dir to the folder that has it, or dataset.download=true" in message
    assert "\n" not in message


def no_network(official, root):
    (Path(root) / "cifar-10-batches-py").mkdir()
    (Path(root) / "cifar-10-batches-py/data_batch_1").write_bytes(b"half of it")
    raise OSError("no route\nto host")


def test_a_download_that_breaks_off_leaves_nothing_that_counts_as_data(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "_fetch", no_network)
    with pytest.raises(UserError, match="could not be downloaded: no route to host; set dataset"):
        datasets.cifar10(str(tmp_path), download=True)
    assert [path.name for path in tmp_path.iterdir() if path.name != ".cifar10.lock"] == []
    made_data.make_cifar10(tmp_path)
    assert len(datasets.cifar10(str(tmp_path), download=True).train) == 200


def slow_download(official, root):
    with open(Path(os.environ["DOWNLOADS"]), "a") as file:
        file.write("once\n")
    time.sleep(0.5)
    made_data.make_cifar10(root)


def load(data_dir):
    datasets._fetch = slow_download
    assert len(datasets.cifar10(str(data_dir), download=True).train) == 200


@pytest.mark.slow
def test_jobs_that_start_at_once_download_once(tmp_path, monkeypatch):
    monkeypatch.setenv("DOWNLOADS", str(tmp_path / "downloads"))
    fork = multiprocessing.get_context("fork")
    jobs = [fork.Process(target=load, args=(tmp_path / "data",)) for _ in range(2)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0, 0]
    assert (tmp_path / "downloads").read_text() == "once\n"


@pytest.mark.parametrize(
    ("name", "make", "file"),
    [
        ("cifar10", made_data.make_cifar10, "cifar-10-batches-py/data_batch_3"),
        ("cifar100", made_data.make_cifar100, "cifar-100-python/test"),
        ("mnist", made_data.make_mnist, "MNIST/raw/train-images-idx3-ubyte"),
        ("mnist", made_data.make_mnist, "MNIST/raw/t10k-labels-idx1-ubyte"),
        ("svhn", made_data.make_svhn, "test_32x32.mat"),
    ],
)
@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"<html>404</html>"])
def test_a_broken_file_is_one_line(name, make, file, damage, tmp_path):
    make(tmp_path)
    path = tmp_path / file
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=f"dataset={name}: .*(is broken|get the files anew)") as error:
        getattr(datasets, name)(str(tmp_path), download=False)
    assert "\n" not in str(error.value)


# --- splits ---------------------------------------------------------------------------------------------------------


def numbered_source(n=1000, classes=10):
    labels = torch.arange(n) % classes
    images = torch.arange(n)[:, None, None, None].expand(-1, 1, 2, 2)
    return Source(TensorSamples(images, labels), TensorSamples(images[:50], labels[:50]), classes)


def test_splits_are_disjoint_stratified_and_of_the_size_asked_for():
    data = split_source(numbered_source(), Split(0.2, 300, None), seed=3)
    train, validation = (set(split.images[:, 0, 0, 0].tolist()) for split in (data.train, data.validation))
    assert (len(train), len(validation)) == (300, 200)
    assert not train & validation
    assert torch.bincount(data.train.labels).tolist() == [30] * 10
    assert torch.bincount(data.validation.labels).tolist() == [20] * 10
    assert torch.equal(data.train.images[:, 0, 0, 0] % 10, data.train.labels)


def test_the_validation_split_depends_on_its_seed_alone():
    def validation(seed, train_size=None):
        data = split_source(numbered_source(), Split(0.1, train_size, None), seed=seed)
        return data.validation.images[:, 0, 0, 0].tolist()

    assert validation(0) == validation(0, train_size=100)
    assert validation(0) != validation(1)


def test_nothing_held_out_keeps_all():
    data = split_source(numbered_source(), Split(0.0, None, None), seed=0)
    assert (len(data.train), len(data.validation)) == (1000, 0)


@pytest.mark.parametrize(
    ("val_fraction", "train_size", "message"),
    [
        (0.5, 501, r"dataset.split.train_size=501: must be in \[10, 500\]"),
        (0.0, 9, r"dataset.split.train_size=9: must be in \[10, 1000\]"),
        (0.001, None, "no stratified split of 1 out of 1000"),
    ],
)
def test_sizes_that_a_set_does_not_have(val_fraction, train_size, message):
    with pytest.raises(UserError, match=message):
        split_source(numbered_source(), Split(val_fraction, train_size, None), seed=0)


# --- image folders --------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    made_data.make_image_folder(tmp_path)
    return str(tmp_path)


def crops(source, seed, order=range(24), size=8):
    chunks = torch.tensor(list(order)).split(size)
    images, labels = zip(*source.train.fetch(chunks, seed), strict=True)
    return torch.cat(images), torch.cat(labels)


def test_an_image_folder_in_order_and_in_training(folder):
    source = datasets.imagenet(folder, size=32, workers=0)
    assert (source.num_classes, len(source.train), len(source.test), source.train.shape) == (3, 24, 12, (3, 32, 32))
    centre, labels = crops(source, seed=None)
    assert centre.dtype == torch.uint8
    assert centre.shape == (24, 3, 32, 32)
    assert labels.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert torch.equal(crops(source, seed=None)[0], centre)
    random_1, random_2 = crops(source, seed=1)[0], crops(source, seed=2)[0]
    assert not torch.equal(random_1, random_2)
    assert not torch.equal(random_1, centre)


def test_centre_crops_are_torchvisions(folder):
    from PIL import Image
    from torchvision.transforms import functional as tv

    source = datasets.imagenet(folder, size=32, workers=0)
    path = sorted(Path(folder).glob("train/*/*.png"))[5]
    resized = tv.resize(Image.open(path), 36, antialias=True)
    assert torch.equal(crops(source, seed=None)[0][5], tv.pil_to_tensor(tv.center_crop(resized, 32)))


def test_crops_depend_on_the_seed_and_the_image_not_on_workers_batches_or_order(folder):
    source = datasets.imagenet(folder, size=32, workers=0)
    state = torch.get_rng_state()
    reference = crops(source, seed=7)[0]
    assert torch.equal(torch.get_rng_state(), state)
    with_workers = datasets.imagenet(folder, size=32, workers=2)
    assert torch.equal(crops(with_workers, seed=7, size=5)[0], reference)
    backwards = crops(source, seed=7, order=reversed(range(24)))[0]
    assert torch.equal(backwards.flip(0), reference)


def test_an_image_folder_is_split_like_any_other_set(folder):
    source = datasets.imagenet(folder, size=16, workers=0)
    data = split_source(source, Split(0.25, 9, None), seed=0)
    assert (len(data.train), len(data.validation), len(data.test)) == (9, 6, 12)
    assert torch.bincount(data.train.labels).tolist() == [3, 3, 3]
    (images, labels), *_ = data.validation.fetch([torch.arange(6)])
    assert torch.equal(labels, data.validation.labels)
    x = data.normalize(images)
    assert x.shape == (6, 3, 16, 16)
    assert x.abs().max() < 3


@pytest.mark.parametrize("missing", ["train", "val"])
def test_an_image_folder_that_is_not_there(tmp_path, missing):
    made_data.make_image_folder(tmp_path)
    os.rename(tmp_path / missing, tmp_path / "elsewhere")
    with pytest.raises(UserError, match=f"{missing}/ is missing \\(looked in {tmp_path}\\)"):
        datasets.imagenet(str(tmp_path), size=32, workers=0)
