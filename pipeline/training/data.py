"""Prepared cases as tensors, and the order in which training sees them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from monai.transforms import Compose
from monai.utils import convert_to_tensor
from torch import Tensor
from torch.utils.data import Dataset, Sampler


@dataclass(frozen=True, eq=False)
class CaseTensors:
    """Network inputs with their labels.

    Attributes:
        images: (N, 1, R, A[, S]) float32.
        labels: (N,) float32, 0 or 1.
        targets: (N,) float32 in [0, 1], what the loss aims at; the labels, unless soft labels are configured.
        case_ids: N ids.
        auxiliary: (N, K) float32, what is learnt beside the logit, each column of mean 0 and variance 1; NaN where a
            cell is blank. K is 0 without auxiliary columns.
    """

    images: Tensor
    labels: Tensor
    targets: Tensor
    case_ids: tuple[str, ...]
    auxiliary: Tensor

    @classmethod
    def from_arrays(
        cls,
        images: Sequence[np.ndarray],
        labels: Sequence[int],
        case_ids: Sequence[str],
        *,
        targets: Sequence[float] | None = None,
        auxiliary: npt.NDArray[np.float64] | None = None,
    ) -> CaseTensors:
        """Stack preprocessed inputs (1, R, A[, S])."""
        return cls(
            images=torch.from_numpy(np.stack(images)),
            labels=torch.tensor(labels, dtype=torch.float32),
            targets=torch.tensor(labels if targets is None else targets, dtype=torch.float32),
            case_ids=tuple(case_ids),
            auxiliary=torch.zeros(len(labels), 0) if auxiliary is None else torch.from_numpy(auxiliary).float(),
        )

    def __len__(self) -> int:
        return len(self.case_ids)


class AugmentedCases(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Training cases, augmented; the random state of each draw depends on (seed, epoch, case) alone.

    So neither the number of loader processes nor the order of cases changes what a case looks like in an epoch.
    """

    def __init__(self, cases: CaseTensors, augmentation: Compose, *, seed: int) -> None:
        self._cases, self._augmentation, self._seed = cases, augmentation, seed

    def __len__(self) -> int:
        return len(self._cases)

    def __getitem__(self, place: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        epoch, index = place
        image = self._cases.images[index]
        if self._augmentation.transforms:
            state = np.random.SeedSequence((self._seed, epoch, index)).generate_state(1)[0]
            self._augmentation.set_random_state(seed=int(state))
            # MONAI answers with a MetaTensor, which would drag its bookkeeping through every layer of the network.
            image = convert_to_tensor(self._augmentation(image.clone()), track_meta=False)
        return image, self._cases.targets[index], self._cases.auxiliary[index]


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, index) in an order drawn from (seed, epoch).

    Args:
        labels: (N,) 0 or 1.
        seed: of the run.
        balanced: draw with replacement so that both classes are equally likely, else each case once.
    """

    def __init__(self, labels: Tensor, *, seed: int, balanced: bool) -> None:
        self._seed, self._size, self._epoch = seed, len(labels), 0
        positive = labels.mean()
        self._weights = torch.where(labels == 1, 0.5 / positive, 0.5 / (1 - positive)).double() if balanced else None

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this at the start of every epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = torch.Generator().manual_seed(
            int(np.random.SeedSequence((self._seed, self._epoch)).generate_state(1)[0])
        )
        if self._weights is None:
            order = torch.randperm(self._size, generator=generator)
        else:
            order = torch.multinomial(self._weights, self._size, replacement=True, generator=generator)
        for index in order.tolist():
            yield self._epoch, index
