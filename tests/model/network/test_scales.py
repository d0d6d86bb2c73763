"""Every scale is one code: built on the meta device, with the names and shapes of transformers' own
classes.
"""

import pytest
import torch
from torch import nn
from transformers import (
    ConvNextConfig,
    ConvNextModel,
    Dinov2Config,
    Dinov2Model,
    LlamaConfig,
    LlamaForCausalLM,
)

from earthgptx.model.interface.config import SCALES, preset
from earthgptx.model.network.earthgptx import EarthGPTX
from earthgptx.model.network.perception import STRIDE
from earthgptx.model.network.spatial_encoder import PROMPT_TOKENS
from earthgptx.model.network.tokens import Vocabulary


def shapes(part: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in part.state_dict().items()}


@pytest.fixture(scope="module")
def base() -> EarthGPTX:
    with torch.device("meta"):
        return EarthGPTX(preset("base"), Vocabulary.train((), 1100)).eval()


def test_base_is_made_of_the_published_parts(base: EarthGPTX) -> None:
    with torch.device("meta"):
        conv = ConvNextModel(
            ConvNextConfig(depths=[3, 3, 27, 3], hidden_sizes=[192, 384, 768, 1536])
        )
        vit = Dinov2Model(
            Dinov2Config(
                hidden_size=1024,
                num_hidden_layers=24,
                num_attention_heads=16,
                image_size=512,
                patch_size=16,
            )
        )
        llama = LlamaForCausalLM(
            LlamaConfig(vocab_size=32768)
        )  # its other defaults are the 7 B ones
    assert shapes(base.encoders.conv) == {
        f"model.{name}": shape for name, shape in shapes(conv).items()
    }
    assert shapes(base.encoders.vit) == shapes(vit)
    assert shapes(base.language.causal) == shapes(llama)


@pytest.mark.parametrize("scale", SCALES)
def test_what_goes_through_a_scale_has_the_shapes_that_are_said(scale: str) -> None:
    config = preset(scale)
    with torch.device("meta"):
        model = EarthGPTX(config, Vocabulary.train((), 1100)).eval()
        side, prompts, queries = config.image_px, 3, 5
        cells = side // config.cell_px
        features = model.encoders(torch.empty((2, 3, side, side), dtype=torch.uint8))
        assert features.image.shape == (2, model.encoders.width, cells, cells)
        codes = model.spatial(
            torch.empty(2 * prompts, 2, cells, cells), torch.empty(2 * prompts, 4)
        )
        assert codes.shape == (2 * prompts, PROMPT_TOKENS, config.hybrid_width)
        fused, tokens = model.hybrid(
            features.image, codes.unflatten(0, (2, prompts)).flatten(1, 2), None
        )
        assert fused.shape == (2, config.hybrid_width, cells, cells)
        assert tokens.shape == (2, (side // config.token_px) ** 2, config.language.width)
        hidden = model.language(tokens)
        assert hidden.shape == tokens.shape
        assert model.language.logits(hidden[:, -1]).shape == (2, config.language.vocabulary)
        pixels, looked = model.perception.pixels(features.conv, features.fine, fused)
        assert pixels.shape == (2, config.mask_width, side // STRIDE, side // STRIDE)
        seen = model.perception(hidden[0, :queries], [0, 1, 1, 0, 1], looked)
        for compared in (model.perception.ground, model.perception.heat):
            masks = compared(seen.queries, [0, 1, 1, 0, 1], pixels)
            assert masks.shape == (queries, side // STRIDE, side // STRIDE)
        assert seen.presence.shape == seen.quality.shape == (queries,)
