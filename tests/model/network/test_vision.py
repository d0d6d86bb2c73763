import pytest
import torch

from earthgptx.model.interface.config import ModelConfig, preset
from earthgptx.model.interface.errors import ConfigError, ImageError, ModelError
from earthgptx.model.network.earthgptx import EarthGPTX
from earthgptx.model.network.efficientnet import EfficientNetLite0
from earthgptx.model.network.language import Language
from earthgptx.model.network.vision import STRIDES, MixedEncoders
from tests.model.lessons import samples


@pytest.mark.parametrize("name", ["tiny", "nano", "base"])
def test_features_of_every_scale_stand_on_common_cells(name: str) -> None:
    config = preset(name)
    with torch.device("meta"):
        encoders = MixedEncoders(config)
        features = encoders(
            torch.empty((2, 3, config.image_px, 2 * config.image_px), dtype=torch.uint8)
        )
    rows = config.image_px // config.cell_px
    assert features.image.shape == (2, encoders.width, rows, 2 * rows)
    assert encoders.width == config.conv.widths[2] + config.conv.widths[3] + config.vit.width
    for stride, width, each in zip(STRIDES, config.conv.widths, features.conv, strict=True):
        assert each.shape == (2, width, config.image_px // stride, 2 * config.image_px // stride)


def test_the_trunk_has_the_names_of_the_published_weights() -> None:
    held = EfficientNetLite0().state_dict()
    assert held["_conv_stem.weight"].shape == (32, 3, 3, 3)
    assert held["_blocks.0._depthwise_conv.weight"].shape == (32, 1, 3, 3)
    assert held["_blocks.15._project_conv.weight"].shape == (320, 1152, 1, 1)
    assert sum(
        tensor.numel() for name, tensor in held.items() if "running" not in name
    ) == pytest.approx(3.0e6, rel=0.05)


@pytest.mark.parametrize("side", [128, 192, 256])
def test_other_sizes_work_and_every_weight_learns(tiny: EarthGPTX, side: int) -> None:
    encoders = tiny.encoders
    encoders.zero_grad()
    features = encoders(torch.randint(0, 255, (1, 3, side, side), dtype=torch.uint8))
    assert features.image.shape[-1] == side // 16
    (
        features.image.sum() + features.fine.sum() + sum(each.sum() for each in features.conv)
    ).backward()
    still = [name for name, weight in encoders.named_parameters() if weight.grad is None]
    assert all("mask_token" in name or "conv.model.layernorm" in name for name in still), still


@pytest.mark.parametrize(
    ("pixels", "sentence"),
    [
        (torch.zeros(1, 3, 128, 128), "images are float32, expected uint8"),
        (torch.zeros((1, 1, 128, 128), dtype=torch.uint8), r"shape \(1, 1, 128, 128\)"),
        (torch.zeros((0, 3, 128, 128), dtype=torch.uint8), r"shape \(0, 3"),
        (torch.zeros((1, 3, 0, 128), dtype=torch.uint8), "0 x 128 px"),
        (torch.zeros((1, 3, 100, 128), dtype=torch.uint8), "not whole multiples of 32 px"),
    ],
)
def test_what_is_no_image_is_refused(tiny: EarthGPTX, pixels: torch.Tensor, sentence: str) -> None:
    with pytest.raises(ImageError, match=sentence):
        tiny.encode(pixels, ["sar"] * len(pixels))


def test_what_does_not_fit_the_images_is_refused(tiny: EarthGPTX) -> None:
    sample = samples(1)[0]
    pixels = torch.from_numpy(sample.pixels)[None]
    with pytest.raises(ModelError, match="modality 'radar' is not known"):
        tiny.encode(pixels, ["radar"])
    with pytest.raises(ModelError, match="1 images, 2 modalities"):
        tiny.encode(pixels, ["sar", "sar"])
    with pytest.raises(ModelError, match="65 prompts of one image, at most 64"):
        tiny.encode(pixels, ["sar"], [[sample.prompts[0]] * 65])


def test_the_scales_are_as_large_as_they_say() -> None:
    millions = {}
    for name in ("tiny", "nano", "base"):
        config = preset(name)
        with torch.device("meta"):
            parts = [MixedEncoders(config), Language(config.language)]
        millions[name] = sum(weight.numel() for part in parts for weight in part.parameters()) / 1e6
    assert millions["tiny"] < 1
    assert 10 < millions["nano"] < 20
    assert 6500 < millions["base"] < 8500


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"hybrid_heads": 5}, "hybrid: a width of 64 is not whole heads of 5"),
        ({"token_px": 24}, "do not fit into one another"),
        ({"langauge": {}}, "langauge: extra inputs"),
        ({"vit": {"width": 48, "layers": 2}}, "vit.heads: field required"),
    ],
)
def test_a_config_whose_parts_do_not_fit_is_refused(
    change: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=f"(?i){sentence}"):
        ModelConfig.from_dict({**preset("tiny").model_dump(mode="json"), **change})


def test_a_scale_of_another_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="no scale 'huge'; there are tiny, nano, small, base"):
        preset("huge")
