"""Images too many for memory: read from a folder by worker processes, cropped there, sent to the device in batches."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

# Of ImageNet's training images, as everywhere, in uint8 units.
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


class ImageFolderSamples:
    """Images below a folder, one folder per class, as uint8 crops of ``size`` × ``size``.

    In training: a random crop of 8 to 100% of the area and a flip (Szegedy et al. 2015), drawn for each image from the
    epoch's seed and the image's number, and so the same for any number of workers. Otherwise: the centre, after
    resizing the shorter side to 8/7 of ``size``.

    Raises:
        FileNotFoundError: there is no such folder, or a class without images.
    """

    def __init__(self, root: Path, size: int, workers: int) -> None:
        from torchvision.datasets import ImageFolder

        self._files = [(str(path), label) for path, label in ImageFolder(str(root)).samples]
        self.labels = torch.tensor([label for _, label in self._files])
        self.size, self.workers, self.device = size, workers, torch.device("cpu")

    @property
    def shape(self) -> tuple[int, ...]:
        return 3, self.size, self.size

    def __len__(self) -> int:
        return len(self._files)

    def to(self, device: torch.device) -> ImageFolderSamples:
        return self._changed(device=device)

    def take(self, indices: np.ndarray[Any, Any]) -> ImageFolderSamples:
        files = [self._files[i] for i in indices.tolist()]
        return self._changed(_files=files, labels=torch.tensor([label for _, label in files], dtype=torch.int64))

    def _changed(self, **attributes: Any) -> ImageFolderSamples:
        other = object.__new__(ImageFolderSamples)
        other.__dict__ |= self.__dict__ | attributes
        return other

    def fetch(self, chunks: Sequence[Tensor], seed: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        loader = DataLoader(
            _Crops(self._files, self.size, seed),
            batch_sampler=[chunk.tolist() for chunk in chunks],
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # the loader draws from it, and must not from the process's own
        )
        for images, labels in loader:
            yield images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)

    def moments(self) -> tuple[Tensor, Tensor]:
        return torch.tensor(MEAN), torch.tensor(STD)


class _Crops(TorchDataset[tuple[Tensor, int]]):
    def __init__(self, files: list[tuple[str, int]], size: int, seed: int | None) -> None:
        from torchvision.transforms import v2

        self.files, self.seed = files, seed
        random_crop = [v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip()]
        centre = [v2.Resize(size * 8 // 7, antialias=True), v2.CenterCrop(size)]
        self.transform = v2.Compose([*(centre if seed is None else random_crop), v2.PILToTensor()])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        path, label = self.files[index]
        with Image.open(path) as image:
            pixels = image.convert("RGB")
        with torch.random.fork_rng(devices=[]):  # leaves the process's own random numbers alone
            if self.seed is not None:
                # Hashed: torch's CPU generator looks at the last 32 bits of a seed alone.
                torch.manual_seed(zlib.crc32(f"{self.seed}/{index}".encode()))
            return self.transform(pixels), label
