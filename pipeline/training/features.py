"""Features of a frozen network, computed once for each input and cached beside the prepared inputs.

An entry is named by a digest of the network (weights, architecture, code) and of the input's voxels, so that a cached
entry equals the computed one. Without ``data.cache`` features are kept for the training only.
"""

from __future__ import annotations

import copy
import struct
from pathlib import Path

import numpy as np
import torch
from isal import isal_zlib
from numpy.typing import NDArray
from torch import nn

import pipeline.models
from pipeline.cases.cache import FEATURES_SUFFIX, StoredInputs, source_digest
from pipeline.config.experiment import Config
from pipeline.files import sha256_bytes, sha256_json
from pipeline.models.networks import last_linear, predict_logits
from pipeline.progress import with_progress
from pipeline.training.data import CaseTensors
from pipeline.training.processes import uses_gpu

Features = NDArray[np.float32]
_CHECKSUM = struct.Struct("<I")


class FeatureStore:
    """Inputs of the last layer of a network, for each requested case.

    Args:
        network: it is copied and not changed.
        config: its configuration, the batch size, the device, and where inputs are kept.
    """

    def __init__(self, network: nn.Module, config: Config) -> None:
        self._body = copy.deepcopy(network).eval()
        name, last = last_linear(self._body)
        self._body.set_submodule(name, nn.Identity())
        if uses_gpu(config.training):
            self._body.cuda()
        self._width, self._batch_size = last.in_features, config.training.batch_size
        self._stored = StoredInputs(config.data.cache) if config.data.cache else None
        self._network = self._digest(config)
        self._known: dict[str, Features] = {}
        self.computed = 0

    def of(self, cases: CaseTensors) -> Features:
        """Features (N, D) of cases, in their order; of mirror images the mean, where the network averages over them."""
        digests = [self._input_digest(cases, place) for place in range(len(cases))]
        absent = [place for place, digest in enumerate(digests) if not self._find(digest)]
        batches = torch.split(torch.tensor(absent, dtype=torch.long), self._batch_size) if absent else ()
        for batch in with_progress(batches, "batches of features", total=len(batches)):
            features = predict_logits(self._body, cases.images[batch], batch_size=len(batch))
            for place, vector in zip(batch.tolist(), features.numpy().astype(np.float32), strict=True):
                self._keep(digests[place], vector)
        self.computed += len(absent)
        return np.stack([self._known[digest] for digest in digests])

    def _digest(self, config: Config) -> str:
        state = self._body.state_dict()
        weights = [[name, sha256_bytes(value.cpu().contiguous().numpy().tobytes())] for name, value in state.items()]
        architecture = config.network.architecture.model_dump(mode="json")
        code = source_digest(Path(pipeline.models.__path__[0]))
        return sha256_json([architecture, config.preprocessing.dimensions, weights, code, torch.__version__])

    def _input_digest(self, cases: CaseTensors, place: int) -> str:
        image = cases.images[torch.tensor([place])].numpy()
        return sha256_json([self._network, list(image.shape), sha256_bytes(image.tobytes())])

    def _place(self, digest: str) -> Path | None:
        if self._stored is None:
            return None
        return self._stored.config.folder / digest[:2] / f"{digest[2:]}{FEATURES_SUFFIX}"

    def _find(self, digest: str) -> bool:
        if digest in self._known:
            return True
        place = self._place(digest)
        try:
            content = place.read_bytes() if place else b""
        except OSError:
            return False
        values = content[: -_CHECKSUM.size]
        if len(values) != 4 * self._width or _CHECKSUM.pack(isal_zlib.crc32(values)) != content[-_CHECKSUM.size :]:
            return False
        self._known[digest] = np.frombuffer(values, "<f4").astype(np.float32)
        return True

    def _keep(self, digest: str, vector: Features) -> None:
        self._known[digest] = vector
        if self._stored and (place := self._place(digest)):
            values = vector.astype("<f4").tobytes()
            self._stored.write(place, values + _CHECKSUM.pack(isal_zlib.crc32(values)))
