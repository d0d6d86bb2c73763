"""Mixed visual encoders: a convolutional and a transformer encoder, concatenated over channels.

V_img = Concat(MVE(I)) in the paper. The convolutional features at strides 16 and 32 are
resampled to the transformer's cells for this. Those at every stride are kept for masks.
"""

# B images, C channels, Y X pixels or cells

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import ConvNextConfig, ConvNextModel, Dinov2Config, Dinov2Model

from earthgptx.model.interface.config import ConvConfig, ModelConfig
from earthgptx.model.interface.errors import ImageError
from earthgptx.model.network.efficientnet import EfficientNetLite0

MEAN, DEVIATION = 0.45, 0.225
"""Mean and standard deviation of pixels in 0..1 on ImageNet. One value for all channels, since SAR
and infrared have no colours."""
STRIDES = (4, 8, 16, 32)
FINE = 24
"""Channels of the features at stride 2."""


@dataclass(frozen=True, slots=True)
class Features:
    """Encoder features of a batch of images."""

    image: Tensor
    """(B, D, Y, X) features of both encoders on common cells, concatenated over channels."""
    conv: tuple[Tensor, ...]
    """(B, C_i, Y_i, X_i) features of the convolutional encoder at strides 4, 8, 16 and 32."""
    fine: Tensor
    """(B, FINE, Y, X) features at stride 2, with edges of objects smaller than a cell of 4 px."""

    def of(self, images: Sequence[int]) -> Features:
        """Features of images selected by index; an image may be selected several times."""
        rows = torch.tensor(images, device=self.image.device)
        return Features(
            image=self.image[rows],
            conv=tuple(level[rows] for level in self.conv),
            fine=self.fine[rows],
        )


class MixedEncoders(nn.Module):
    """The convolutional encoder and the transformer encoder."""

    def __init__(self, config: ModelConfig) -> None:
        """Builds both encoders with random weights."""
        super().__init__()
        self.cell_px, self.token_px = config.cell_px, config.token_px
        # Convolutions are twice as fast with channels last, on a CPU and on a GPU.
        self.conv = _conv(config.conv)
        self.conv.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        vit = config.vit
        self.vit = Dinov2Model(
            Dinov2Config(
                hidden_size=vit.width,
                num_hidden_layers=vit.layers,
                num_attention_heads=vit.heads,
                patch_size=vit.patch,
                image_size=config.image_px,
                mlp_ratio=4,
            )
        )
        self.fine = nn.Sequential(nn.Conv2d(3, FINE, 5, stride=2, padding=2), nn.GELU())
        self.fine.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.width = config.conv.widths[2] + config.conv.widths[3] + vit.width

    def forward(self, pixels: Tensor) -> Features:
        """Encodes images.

        Args:
            pixels: (B, 3, Y, X) uint8, with sides that are multiples of `token_px`.

        Raises:
            ImageError: if the dtype or shape is wrong.
        """
        check_images(pixels, self.token_px)
        if self.training or pixels.device.type != "cpu":
            return self._encoded(pixels)
        # On a CPU, one image at a time is twice as fast: a batch does not fit into its caches.
        each = [self._encoded(pixels[number : number + 1]) for number in range(len(pixels))]
        levels = zip(*(one.conv for one in each), strict=True)
        return Features(
            image=torch.cat([one.image for one in each]),
            conv=tuple(torch.cat(level) for level in levels),
            fine=torch.cat([one.fine for one in each]),
        )

    def _encoded(self, pixels: Tensor) -> Features:
        weight = next(self.parameters())
        images = ((pixels.to(weight.dtype) / 255 - MEAN) / DEVIATION).contiguous(
            memory_format=torch.channels_last
        )
        conv = self.conv(images)
        rows, cols = images.shape[-2] // self.cell_px, images.shape[-1] // self.cell_px
        patches = self.vit(pixel_values=images, interpolate_pos_encoding=True).last_hidden_state[
            :, 1:
        ]
        vit = patches.transpose(1, 2).reshape(len(images), -1, rows, cols)
        coarse = [
            functional.interpolate(each, (rows, cols), mode="bilinear", align_corners=False)
            for each in conv[2:]
        ]
        return Features(image=torch.cat([*coarse, vit], dim=1), conv=conv, fine=self.fine(images))


class ConvNext(nn.Module):
    """ConvNeXt from transformers that returns the features of all stages."""

    def __init__(self, config: ConvConfig) -> None:
        """Builds the module with random weights."""
        super().__init__()
        self.model = ConvNextModel(
            ConvNextConfig(hidden_sizes=list(config.widths), depths=list(config.depths))
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns features at strides 4, 8, 16 and 32."""
        states = self.model(images, output_hidden_states=True).hidden_states
        return cast("tuple[Tensor, Tensor, Tensor, Tensor]", tuple(states[-4:]))


def padded(pixels: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """Pads an image (3, Y, X) with zeros at bottom and right to multiples of `step`."""
    return np.pad(pixels, ((0, 0), (0, -pixels.shape[1] % step), (0, -pixels.shape[2] % step)))


def check_images(pixels: Tensor, step: int) -> None:
    """Checks that pixels are a batch of images (B, 3, Y, X) uint8 with sides divisible by `step`.

    Raises:
        ImageError: if the dtype, shape or a side is wrong.
    """
    if pixels.dtype != torch.uint8:
        raise ImageError(
            f"images are {str(pixels.dtype).removeprefix('torch.')}, "
            "expected uint8 scaled by collection"
        )
    if pixels.ndim != 4 or pixels.shape[1] != 3 or not pixels.shape[0]:
        raise ImageError(
            f"images have the shape {tuple(pixels.shape)}, "
            "expected (B, 3, rows, columns) with B > 0"
        )
    rows, cols = pixels.shape[-2:]
    if not rows or not cols or rows % step or cols % step:
        raise ImageError(
            f"images of {rows} x {cols} px are not whole multiples of {step} px; pad them"
        )


def _conv(config: ConvConfig) -> nn.Module:
    return (
        EfficientNetLite0(config.widths)
        if config.kind == "efficientnet-lite0"
        else ConvNext(config)
    )
