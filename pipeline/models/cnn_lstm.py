"""A network for thick slices: a 2D encoder for each slice, a bidirectional LSTM through the slices, and attention.

Where slices are 3 to 10 mm apart, a 3D convolution would treat neighbours as if they touched. Here each slice is read
as a picture, and the LSTM carries information from slice to slice.

Preprocessing gives every case the same number of slices; those beyond the ends of a short scan are padding. They are
recognised by being constant, which no slice with content is, so that one input tensor serves training, scoring and
every backend. A caller that knows the slices passes ``present``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class CNNLSTM(nn.Module):
    """Slices → features → bidirectional LSTM → attention pooling → linear outputs; padding slices change nothing.

    Args:
        encoder: one slice (N, 1, R, A) → (N, features), in any batch.
        features: of the encoder.
        hidden: units of the LSTM, in each direction.
        dropout: before the linear layer.
        outputs: of the linear layer.
    """

    def __init__(self, encoder: nn.Module, *, features: int, hidden: int, dropout: float, outputs: int = 1) -> None:
        super().__init__()
        self.encoder = encoder
        self.upwards, self.downwards = MaskedLSTM(features, hidden), MaskedLSTM(features, hidden)
        self.attention = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.Tanh(), nn.Linear(hidden, 1, bias=False))
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * hidden, outputs))

    def forward(self, images: Tensor, present: Tensor | None = None) -> Tensor:
        """(B, 1, R, A, S) → (B, outputs).

        Args:
            images: slices lie along the last axis.
            present: (B, S) bool, False for padding; by default, the slices whose voxels are not all the same.
        """
        slices = images.permute(0, 4, 1, 2, 3)  # (B, S, 1, R, A)
        if present is None:
            present = slices.amax(dim=(2, 3, 4)) > slices.amin(dim=(2, 3, 4))
        states = self.read(self.encode(slices, present), present)  # (B, S, 2 hidden)
        weights = self.weigh(states, present)  # (B, S)
        logits: Tensor = self.head((weights.unsqueeze(2) * states).sum(dim=1))
        return logits

    def encode(self, slices: Tensor, present: Tensor) -> Tensor:
        """(B, S, 1, R, A) → (B, S, features); in training padding must not enter the batch's statistics either."""
        pictures = slices.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        if self.training:
            encoded = self.encoder(pictures[present.flatten()])
            seen: Tensor = encoded.new_zeros(len(pictures), encoded.shape[1])
            seen[present.flatten()] = encoded
        else:
            seen = self.encoder(pictures)
        reshaped: Tensor = seen.view(-1, slices.shape[1], seen.shape[1])
        return reshaped

    def read(self, seen: Tensor, present: Tensor) -> Tensor:
        """Outputs of the two LSTMs at each slice: (B, S, features) → (B, S, 2 hidden)."""
        back = self.downwards(seen.flip(1), present.flip(1)).flip(1)
        return torch.cat([self.upwards(seen, present), back], dim=2)

    def weigh(self, states: Tensor, present: Tensor) -> Tensor:
        """Attention (B, S): sums to 1 over each case's slices, 0 at padding."""
        # The lowest number instead of minus infinity, so that an input of padding alone stays finite.
        scores = self.attention(states).squeeze(2)  # (B, S, 1) -> (B, S)
        weights: Tensor = scores.masked_fill(~present, torch.finfo(scores.dtype).min).softmax(dim=1)
        return weights


class MaskedLSTM(nn.LSTMCell):
    """An LSTM that passes its state unchanged over absent steps, wherever they are.

    ``torch.nn.LSTM`` skips steps only at the end of a packed sequence, and packing does not survive every export; a
    lesion near the first slice of a scan has its padding in front.
    """

    def forward(self, inputs: Tensor, present: Tensor) -> Tensor:  # type: ignore[override]  # a sequence, not a step
        """Hidden states (B, S, hidden) of inputs (B, S, features), after each step."""
        return self.trace(inputs, present)[0]

    def trace(self, inputs: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states (B, S, hidden), and the gates (B, S, 3, hidden): input, forget and output, each a sigmoid."""
        projected = functional.linear(inputs, self.weight_ih, self.bias_ih)  # (B, S, 4 hidden)
        hidden = cell = projected.new_zeros(1, self.hidden_size)  # broadcast: an export would fix the batch's size
        states, gates = [], []
        for step in range(inputs.shape[1]):
            summed = projected[:, step] + functional.linear(hidden, self.weight_hh, self.bias_hh)
            entry, forget, candidate, output = summed.chunk(4, dim=1)
            entry, forget, output = entry.sigmoid(), forget.sigmoid(), output.sigmoid()
            fresh = forget * cell + entry * candidate.tanh()
            keep = present[:, step].unsqueeze(1)
            hidden = torch.where(keep, output * fresh.tanh(), hidden)
            cell = torch.where(keep, fresh, cell)
            states.append(hidden)
            gates.append(torch.stack([entry, forget, output], dim=1))
        return torch.stack(states, dim=1), torch.stack(gates, dim=1)
