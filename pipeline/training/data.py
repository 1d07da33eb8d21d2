"""Prepared cases as tensors, and the order in which training sees them."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from pipeline.config.experiment import Config
from pipeline.imaging.augmentation import build_augmentation
from pipeline.imaging.batch_augmentation import BatchAugmentation
from pipeline.training.processes import Processes, processes, uses_gpu
from pipeline.training.shared_memory import too_small


class ImageRows:
    """Network inputs that are only copied, for example from mapped files, when a batch needs them.

    Args:
        rows: M arrays (1, R, A[, S]) float32, or one of them all.
        places: of N of them; by default all, in order.
    """

    def __init__(
        self, rows: Sequence[npt.NDArray[np.float32]] | npt.NDArray[np.float32], places: Sequence[int] | None = None
    ) -> None:
        self._rows = rows
        self._places = range(len(rows)) if places is None else places

    @property
    def rows(self) -> list[npt.NDArray[np.float32]]:
        """The N arrays."""
        return [self._rows[place] for place in self._places]

    def __getitem__(self, places: Tensor) -> Tensor:
        """Copies of some of them, (B, 1, R, A[, S])."""
        return torch.from_numpy(np.stack([self._rows[self._places[place]] for place in places.tolist()]))


@dataclass(frozen=True, eq=False)
class CaseTensors:
    """Network inputs with their labels.

    Attributes:
        images: (N, 1, R, A[, S]) float32; gives a batch for a tensor of places.
        labels: (N, F) float32, 0 or 1 for each finding, NaN where unknown.
        targets: (N, F) float32 in [0, 1], targets of the loss; the labels, unless soft labels are configured.
        case_ids: N ids.
        auxiliary: (N, K) float32, what is learnt beside the logit, each column of mean 0 and variance 1; NaN where a
            cell is blank. K is 0 without auxiliary columns.
        patients: N patients, who stay together where cases are divided again; by default each case is its own.
    """

    images: Tensor | ImageRows
    labels: Tensor
    targets: Tensor
    case_ids: tuple[str, ...]
    auxiliary: Tensor
    patients: tuple[str, ...]

    @classmethod
    def from_arrays(
        cls,
        images: Sequence[np.ndarray] | ImageRows,
        labels: npt.ArrayLike,
        case_ids: Sequence[str],
        *,
        targets: npt.ArrayLike | None = None,
        auxiliary: npt.NDArray[np.float64] | None = None,
        patients: Sequence[str] | None = None,
    ) -> CaseTensors:
        """Stack inputs (1, R, A[, S]), or keep :class:`ImageRows`; labels and targets are (N, F), or (N,) of one."""
        count = len(case_ids)
        hard, aims = (
            torch.from_numpy(np.array(values, np.float32).reshape(count, -1))
            for values in (labels, labels if targets is None else targets)
        )
        return cls(
            images=images if isinstance(images, ImageRows) else torch.from_numpy(np.stack(images)),
            labels=hard,
            targets=aims,
            case_ids=tuple(case_ids),
            auxiliary=torch.zeros(count, 0) if auxiliary is None else torch.from_numpy(auxiliary).float(),
            patients=tuple(case_ids if patients is None else patients),
        )

    def __len__(self) -> int:
        return len(self.case_ids)


class Batch(NamedTuple):
    """Some of the cases.

    Attributes:
        images: (B, 1, R, A[, S]) float32.
        targets: (B, F) as in :class:`CaseTensors`.
        auxiliary: (B, K) as in :class:`CaseTensors`.
        labels: (B, F) as in :class:`CaseTensors`.
        cases: (B,) int64, places in :class:`CaseTensors`.
    """

    images: Tensor
    targets: Tensor
    auxiliary: Tensor
    labels: Tensor
    cases: Tensor


class CaseBatches(Dataset[Batch]):
    """Whole batches of cases: one indexing operation each, where a loader would collate case by case.

    Args:
        cases: to take them from.
        held: (workers, largest batch) in shared memory, where each worker writes what it is reading; -1 elsewhere.
    """

    def __init__(self, cases: CaseTensors, held: Tensor | None = None) -> None:
        self._cases, self._held = cases, held

    def __getitem__(self, places: list[int]) -> Batch:
        cases, chosen = self._cases, torch.tensor(places)
        worker = get_worker_info()
        if worker is None or self._held is None:
            images = cases.images[chosen]
        else:
            self._held[worker.id, : len(places)] = chosen
            images = cases.images[chosen]
            self._held[worker.id] = -1
        return Batch(images, cases.targets[chosen], cases.auxiliary[chosen], cases.labels[chosen], chosen)


class EpochBatches(Sampler[list[int]]):
    """Yields the places of each batch, in an order drawn from (seed, epoch).

    A last batch that would leave a process one case is left out: batch normalisation cannot use it.

    Args:
        labels: (N,) 0 or 1.
        batch_size: of all batches but the last.
        seed: of the run.
        balanced: draw with replacement so that both classes are equally likely, else each case once.
        processes: among which each batch is divided.
    """

    def __init__(
        self,
        labels: Tensor,
        *,
        batch_size: int,
        seed: int,
        balanced: bool,
        processes: Processes = Processes(),  # noqa: B008  # frozen
    ) -> None:
        self._processes = processes
        self._seed, self._size, self._batch_size, self._epoch = seed, len(labels), batch_size, 0
        positive = labels.mean()
        self._weights = torch.where(labels == 1, 0.5 / positive, 0.5 / (1 - positive)).double() if balanced else None

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this at the start of every epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        full, rest = divmod(self._size, self._batch_size)
        return full + int(rest >= 2 * self._processes.count)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(
            int(np.random.SeedSequence((self._seed, self._epoch)).generate_state(1)[0])
        )
        if self._weights is None:
            order = torch.randperm(self._size, generator=generator)
        else:
            order = torch.multinomial(self._weights, self._size, replacement=True, generator=generator)
        for batch in torch.split(order, self._batch_size)[: len(self)]:
            yield self._processes.share(batch.tolist())


class BatchCopies:
    """Copies batches to a GPU on a stream of their own, so that the GPU still computes the step before.

    Args:
        device: a CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._device = device

    def copy(self, batch: Batch) -> Batch:
        """The batch on the device; ``cases`` stay on the CPU, which draws their augmentation."""
        computing = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._stream):
            tensors = {name: self._moved(getattr(batch, name)) for name in batch._fields if name != "cases"}
        computing.wait_stream(self._stream)
        for tensor in tensors.values():
            tensor.record_stream(computing)  # its memory is not given to another copy while it is computed with
        return batch._replace(**tensors)

    def _moved(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._device, non_blocking=True)


class CasesDataModule(pl.LightningDataModule):
    """Loaders of both splits; training batches are augmented on the device that they have been moved to.

    Args:
        train: fits the weights.
        validation: not augmented, in its order; None without a validation split.
        config: batches, class balance, augmentation and seed.
    """

    def __init__(self, train: CaseTensors, validation: CaseTensors | None, config: Config) -> None:
        super().__init__()
        self._held: list[tuple[CaseTensors, Tensor]] = []
        self._train, self._validation, self._settings = train, validation, config.training
        self._workers = config.training.loader_workers
        self._copies: BatchCopies | None = None
        if fault := self.shared_memory_fault():  # a loader process would wait for room that never comes
            self._workers = 0
            if processes().rank == 0:
                print(f"warning: {fault}; reading without them, which is slower", file=sys.stderr)
        self._augmentation = BatchAugmentation(
            build_augmentation(config.augmentation, dimensions=config.preprocessing.dimensions), seed=config.seed
        )
        self.batches = EpochBatches(
            train.labels[:, 0],
            batch_size=self._settings.batch_size,
            seed=config.seed,
            balanced=self._settings.class_balance == "balanced_sampler",
            processes=processes(),
        )

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches in the epoch's order."""
        return self._loader(self._train, self.batches)

    def val_dataloader(self) -> DataLoader[Batch] | tuple[()]:
        """Each process's part of the cases, none of them twice; all processes have as many batches."""
        if self._validation is None:
            return ()
        group, cases = processes(), len(self._validation)
        batches = max(min(math.ceil(cases / self._settings.batch_size), cases // group.count), 1)
        parts = np.array_split(np.arange(cases), batches * group.count)[group.rank :: group.count]
        return self._loader(self._validation, [part.tolist() for part in parts])

    def being_read(self) -> list[str]:
        """Cases that loader processes are reading, for the error when one of them dies."""
        return [cases.case_ids[place] for cases, held in self._held for place in held.flatten().tolist() if place >= 0]

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """To a GPU beside what it computes; elsewhere as Lightning does."""
        if device.type != "cuda":
            moved: Batch = super().transfer_batch_to_device(batch, device, dataloader_idx)
            return moved
        if self._copies is None:
            self._copies = BatchCopies(device)
        return self._copies.copy(batch)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment what training sees."""
        if self.trainer is None or not self.trainer.training:
            return batch
        images = self._augmentation(batch.images, epoch=self.trainer.current_epoch, cases=batch.cases.tolist())
        return batch._replace(images=images)

    def shared_memory_fault(self) -> str | None:
        """Why the configured loader processes would stall for want of shared memory; None when there is enough."""
        size, workers = self._settings.batch_size, self._settings.loader_workers
        sizes = [
            size * sum(tensor.nbytes for tensor in CaseBatches(cases)[[0]])
            for cases in (self._train, self._validation)
            if cases is not None and workers
        ]
        return too_small(max(sizes), workers * len(sizes)) if sizes else None

    def _loader(self, cases: CaseTensors, batches: Sampler[list[int]] | list[list[int]]) -> DataLoader[Batch]:
        workers = self._workers
        held = torch.full((workers, self._settings.batch_size), -1) if workers else None
        if held is not None:
            held.share_memory_()  # type: ignore[no-untyped-call]
            self._held.append((cases, held))
        return DataLoader(
            CaseBatches(cases, held),
            sampler=batches,
            batch_size=None,
            num_workers=workers,
            pin_memory=uses_gpu(self._settings),  # else a copy to the GPU waits for it
            persistent_workers=workers > 0,
        )
