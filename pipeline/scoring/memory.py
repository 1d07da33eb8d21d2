"""Run batches that do not fit a device's memory in parts."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import UnfinishedError


class PartsThatFit:
    """Runs a batch as a whole or, once one did not fit the memory, as many inputs at a time as fit.

    The probabilities do not depend on it: in evaluation mode no input changes another's logit, but for rounding.

    Args:
        predict: images (B, 1, R, A[, S]) to logits (B, F), B at least 1.
    """

    def __init__(self, predict: Callable[[NDArray[np.float32]], NDArray[np.float64]]) -> None:
        self._predict = predict
        self._most: int | None = None

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float64]:
        """Logits (B, F).

        Raises:
            UnfinishedError: when the memory does not hold a single input.
        """
        logits: list[NDArray[np.float64]] = []
        done = 0
        while done < len(images):
            part = images[done : done + (self._most or len(images))]
            answer = self._try(part)
            if answer is not None:
                logits.append(answer)
                done += len(part)
            elif len(part) > 1:
                self._lower(len(part))
            else:
                raise UnfinishedError(
                    "the device's memory does not hold one input; free what other programs hold, or hide the GPU "
                    "(CUDA_VISIBLE_DEVICES=) to score on the CPU; rows written before are kept: run the command again"
                )
        return logits[0] if len(logits) == 1 else np.concatenate(logits)

    def _try(self, images: NDArray[np.float32]) -> NDArray[np.float64] | None:
        try:
            return self._predict(images)
        except torch.OutOfMemoryError:
            return None

    def _lower(self, too_many: int) -> None:
        most = self._most = too_many // 2
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        print(
            f"the device's memory does not hold {too_many} inputs; they go through the network {most} at a "
            f"time, and no case is lost (--batch-size {most} asks for no more)",
            file=sys.stderr,
        )
