"""Learning curve of a training: loss of each epoch, and the validation loss where a validation split was used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from pipeline.evaluation.report.figure_frame import BLUE, VERMILION, Caption, new_frame

Epochs = Sequence[Mapping[str, float]]


def learning_curve_figure(networks: Sequence[Epochs], *, caption: Caption) -> Figure | None:
    """Loss against epoch, a line a network; the validation split's in another colour. None without an epoch.

    Args:
        networks: of each network its epochs' numbers: ``train_loss``, and perhaps ``validation_log_loss``.
        caption: of the model.
    """
    if not any(networks):
        return None
    figure, axes = new_frame("How the training went", caption, probabilities=False)
    series = (("train_loss", "training loss", BLUE), ("validation_log_loss", "validation log loss", VERMILION))
    for name, title, colour in series:
        shown = False
        for epochs in networks:
            points = [(number, epoch[name]) for number, epoch in enumerate(epochs, start=1) if name in epoch]
            if points:
                label = None if shown else title + (f", {len(networks)} networks" if len(networks) > 1 else "")
                axes.plot(*zip(*points, strict=True), color=colour, lw=1.4, alpha=0.8, label=label)
                shown = True
    axes.set_xlabel("Epoch")
    axes.set_ylabel("Loss")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8)
    return figure
