"""Multistage U-Nets: one encoder for all noise levels, one decoder for each interval of them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from repro.errors import unknown
from repro.networks.layers.stages import Stages
from repro.networks.layers.unet import Decoder, Middle
from repro.networks.song_unet import SongUNet

__all__ = ["MultistageUNet"]


class MultistageUNet(SongUNet):
    r"""A :class:`SongUNet` whose decoder depends on the noise level.

    The range of noise levels is cut at ``boundaries`` into intervals, open below and closed above; every image of a
    batch goes through the decoder of its own interval. The defaults are the EDM form, whose noise level is
    :math:`\tfrac14 \log\sigma`, cut at :math:`\sigma = 2.5103` and :math:`7.6577`. The deep form for VP is
    ``num_blocks=8, channel_mult=[1, 2, 2, 2], encoder="residual", resample_filter=[1, 3, 3, 1], share_middle=True,
    boundaries=[442.0, 630.8]`` with noise levels :math:`999 t`.

    Args:
        image_size: As for :class:`SongUNet`.
        channels: As for :class:`SongUNet`.
        num_classes: As for :class:`SongUNet`.
        width: Unit of ``channel_mult`` in the encoder.
        decoder_widths: Unit of ``channel_mult`` in every decoder; one number for all of them alike.
        boundaries: Noise levels between the intervals, ascending.
        interval_decoders: Which decoder each interval uses; None: one decoder for each, in order.
        share_middle: Whether the coarsest two blocks belong to the encoder (deep form) or to every decoder (EDM form).
        max_groups: Largest number of groups of a group normalisation.
        **options: Further arguments of :class:`SongUNet`.

    Raises:
        UserError: as :class:`SongUNet`; boundaries that are not ascending or do not fit the decoders.

    Source: Zhang et al. 2023, arXiv:2312.09181, section 4 and appendix.

    Example:
        >>> import torch
        >>> network = MultistageUNet(8, 1, width=16, decoder_widths=[24, 8], boundaries=[0.5], num_blocks=1)
        >>> network.stage_of(torch.tensor([0.1, 0.5, 0.9])).tolist()
        [0, 0, 1]
    """

    _single_decoder: ClassVar[bool] = False

    def __init__(
        self,
        image_size: int | Sequence[int] | None = None,
        channels: int | None = None,
        num_classes: int | None = None,
        width: int = 128,
        decoder_widths: Sequence[int] | int = (192, 128, 16),
        boundaries: Sequence[float] = (0.23010, 0.50893),
        interval_decoders: Sequence[int] | None = None,
        share_middle: bool = False,
        max_groups: int = 16,
        **options: Any,
    ) -> None:
        known = inspect.signature(SongUNet.__init__).parameters
        for option in options:
            if option not in known:
                raise unknown("argument of MultistageUNet", option, [*known][1:])
        if isinstance(decoder_widths, int):
            count = len(boundaries) + 1 if interval_decoders is None else len(set(interval_decoders))
            decoder_widths = [decoder_widths] * count
        routes = Stages(len(decoder_widths), boundaries, interval_decoders)
        super().__init__(image_size, channels, num_classes, width, max_groups=max_groups, **options)
        self.routes = routes
        coarsest = self.encoder.out_channels
        self.middle = Middle(self.settings, coarsest) if share_middle else None
        self.stages = nn.ModuleList(
            _Stage(None if share_middle else Middle(self.settings, coarsest), self._build_decoder(unit))
            for unit in decoder_widths
        )

    def stage_of(self, noise_level: Tensor) -> Tensor:
        """Returns the decoder that each noise level uses, int64 of the same shape."""
        return self.routes.of(noise_level)

    def forward(
        self,
        x: Tensor,
        noise_level: Tensor,
        labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
        stage: int | None = None,
    ) -> Tensor:
        """Maps scaled noisy images to images, each through the decoder of its noise level.

        Args:
            x: Shape (B, C, H, W).
            noise_level: Shape (B,).
            labels: As for :class:`SongUNet`.
            augment_labels: As for :class:`SongUNet`.
            stage: One decoder for the whole batch, whatever the noise levels: spares sorting the batch by decoder.

        Returns:
            Images of shape (B, out_channels, H, W).

        Raises:
            UserError: shapes or labels do not fit, or there is no such stage.
        """
        x, embedding = self._prepare(x, noise_level, labels, augment_labels)
        x, skips = self.encoder(x, embedding)
        if self.middle is not None:
            x = self.middle(x, embedding)
        features = [x, *skips] if embedding is None else [x, *skips, embedding]

        def decode(index: int, rows: list[Tensor]) -> Tensor:
            skips = rows[1:] if embedding is None else rows[1:-1]
            return self.stages[index](rows[0], skips, None if embedding is None else rows[-1])

        return self._divide(self.routes.run(decode, features, noise_level, stage), noise_level)


class _Stage(nn.Module):
    def __init__(self, middle: Middle | None, decoder: Decoder) -> None:
        super().__init__()
        self.middle = middle
        self.decoder = decoder

    def forward(self, x: Tensor, skips: list[Tensor], embedding: Tensor | None) -> Tensor:
        return self.decoder(x if self.middle is None else self.middle(x, embedding), skips, embedding)
