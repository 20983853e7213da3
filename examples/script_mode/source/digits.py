"""The data: 1,797 digits of 8 by 8 pixels, which come with scikit-learn."""

import torch
from sklearn.datasets import load_digits

_TEST = 297


def training_rows(rank: int, world: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels and labels of every ``world``-th row, from row ``rank`` on."""
    pixels, labels = _rows()
    return pixels[_TEST + rank :: world], labels[_TEST + rank :: world]


def test_rows() -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels and labels that nobody trained on."""
    pixels, labels = _rows()
    return pixels[:_TEST], labels[:_TEST]


def _rows() -> tuple[torch.Tensor, torch.Tensor]:
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    pixels = torch.tensor(data.data / 16, dtype=torch.float32)
    return pixels[order], torch.tensor(data.target)[order]
