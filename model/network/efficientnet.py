"""EfficientNet-Lite0 (Tan 2020; no squeeze-and-excitation, ReLU6) without its classifier.

Parameter names match the published weights. The last block at each of the strides 4, 8, 16 and 32
gives the features of that stride.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from earthgptx.model.interface.errors import ConfigError

WIDTHS = (24, 40, 112, 320)
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Blocks, kernel, stride, expansion and channels per stage; Tan and Le (2019), table 1."""
_TAPS = (2, 4, 10, 15)
"""Index of the last block at each of the strides 4, 8, 16 and 32."""


class EfficientNetLite0(nn.Module):
    """The convolutional trunk."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        """Builds the module with random weights.

        Raises:
            ConfigError: if `widths` is not `WIDTHS`.
        """
        super().__init__()
        if tuple(widths) != WIDTHS:
            raise ConfigError(
                f"config.json, conv.widths: EfficientNet-Lite0 has {WIDTHS}, not {tuple(widths)}"
            )
        self._conv_stem = _Same(3, 32, 3, stride=2)
        self._bn0 = nn.BatchNorm2d(32, eps=1e-3, momentum=0.01)
        blocks, before = [], 32
        for count, kernel, stride, expansion, channels in _STAGES:
            for number in range(count):
                blocks.append(
                    _Block(before, channels, kernel, stride if number == 0 else 1, expansion)
                )
                before = channels
        self._blocks = nn.ModuleList(blocks)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns features at strides 4, 8, 16 and 32, with 24, 40, 112 and 320 channels."""
        features = functional.relu6(self._bn0(self._conv_stem(images)), inplace=True)
        found = []
        for number, block in enumerate(self._blocks):
            features = block(features)
            if number in _TAPS:
                found.append(features)
        return cast("tuple[Tensor, Tensor, Tensor, Tensor]", tuple(found))


class _Same(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding: an uneven pad has its extra pixel last."""

    def __init__(
        self, before: int, after: int, kernel: int, *, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(before, after, kernel, stride=stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        total = [
            max((-(-side // stride) - 1) * stride + kernel - side, 0)
            for side, kernel, stride in zip(x.shape[2:], self.kernel_size, self.stride, strict=True)
        ]
        # A separate pad copies the features, so only uneven padding uses it.
        if any(pad % 2 for pad in total):
            rows, cols = total
            x = functional.pad(x, (cols // 2, cols - cols // 2, rows // 2, rows - rows // 2))
            total = [0, 0]
        return functional.conv2d(
            x, self.weight, None, self.stride, [pad // 2 for pad in total], groups=self.groups
        )


class _Block(nn.Module):
    """An inverted residual block."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = before * expansion
        self.keeps = stride == 1 and before == after
        self.expands = expansion != 1
        if self.expands:
            self._expand_conv, self._bn0 = (
                _Same(before, wide, 1),
                nn.BatchNorm2d(wide, eps=1e-3, momentum=0.01),
            )
        self._depthwise_conv = _Same(wide, wide, kernel, stride=stride, groups=wide)
        self._bn1 = nn.BatchNorm2d(wide, eps=1e-3, momentum=0.01)
        self._project_conv, self._bn2 = (
            _Same(wide, after, 1),
            nn.BatchNorm2d(after, eps=1e-3, momentum=0.01),
        )

    def forward(self, x: Tensor) -> Tensor:
        wide = (
            functional.relu6(self._bn0(self._expand_conv(x)), inplace=True) if self.expands else x
        )
        wide = functional.relu6(self._bn1(self._depthwise_conv(wide)), inplace=True)
        narrow: Tensor = self._bn2(self._project_conv(wide))
        return narrow + x if self.keeps else narrow
