"""The same words alone, in any batch and order, and by transformers' own generate."""

import pytest
import torch

from earthgptx.model.inference.generate import Trie, decode, likelihoods, read, read_prefix
from earthgptx.model.network.earthgptx import EarthGPTX
from earthgptx.model.network.encoded import Branch, Encoded
from earthgptx.model.network.language import Slots
from tests.model.lessons import NAMES, samples


@pytest.fixture(scope="module")
def encoded(taught: EarthGPTX) -> Encoded:
    batch = samples()
    with torch.inference_mode():
        return taught.encode(
            torch.stack([torch.from_numpy(sample.pixels) for sample in batch]),
            [s.modality for s in batch],
            [sample.prompts for sample in batch],
        )


MARKS = ("sep", "p", "</p>", "seg")


def branches(model: EarthGPTX) -> list[Branch]:
    """Of every length and kind, all images mixed."""
    made = []
    for image, sample in enumerate(samples()):
        made += [model.refer(image, prompt.id) for prompt in sample.prompts]
        made += [
            model.describe(image),
            model.ask(image, f"how many {NAMES[image]}s?"),
            model.ask(image, "what is this?", ["a"]),
        ]
    return made


def test_rows_keep_apart_in_their_slots(taught: EarthGPTX) -> None:
    language = taught.language
    with torch.inference_mode():
        embeds = torch.randn(3, 9, language.width)
        whole = language(embeds)
        slots = Slots.empty(language, 3, 20)
        first = language(embeds[:, :5], slots)
        slots.advance([5, 3, 5])
        second = language(embeds[:, 5:], slots)
        assert torch.allclose(torch.cat([first, second], dim=1)[[0, 2]], whole[[0, 2]], atol=1e-5)
        shorter = language(torch.cat([embeds[1:2, :3], embeds[1:2, 5:]], dim=1))
        assert torch.allclose(shorter[0, 3:], second[1], atol=1e-5)


def test_words_are_those_of_transformers_generate(taught: EarthGPTX, encoded: Encoded) -> None:
    end = taught.vocabulary.mark("eos")
    for branch in branches(taught)[:10]:
        embeds = torch.cat([encoded.prefix[branch.image], *taught.embed(encoded, [branch])])[None]
        with torch.inference_mode():
            plain = taught.language.causal.generate(
                inputs_embeds=embeds,
                attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long),
                max_new_tokens=24,
                do_sample=False,
                eos_token_id=end,
                pad_token_id=taught.vocabulary.mark("pad"),
                suppress_tokens=taught.vocabulary.unsayable(("eos", *MARKS)),
            )[0].tolist()
        past = read_prefix(taught, encoded)
        [ours] = decode(taught, encoded, past, [branch], 24, marks=MARKS)
        assert ours.tokens == [token for token in plain if token != end]
        assert ours.tokens


@pytest.mark.parametrize("rows", [1, 3, 7, 128])
def test_any_number_of_rows_and_any_order_say_the_same(
    taught: EarthGPTX, encoded: Encoded, rows: int
) -> None:
    past, asked = read_prefix(taught, encoded), branches(taught)
    expected = decode(taught, encoded, past, asked, 24, marks=MARKS)
    order = torch.randperm(len(asked), generator=torch.Generator().manual_seed(rows)).tolist()
    found = decode(taught, encoded, past, [asked[at] for at in order], 24, marks=MARKS, rows=rows)
    for at, one in zip(order, found, strict=True):
        assert one.tokens == expected[at].tokens
        assert one.log_likelihood == pytest.approx(expected[at].log_likelihood, abs=1e-4)
        assert len(one.hidden) == len(one.tokens)


def test_a_budget_that_is_hit_is_said(taught: EarthGPTX, encoded: Encoded) -> None:
    asked = branches(taught)
    past = read_prefix(taught, encoded)
    whole, short = (decode(taught, encoded, past, asked, budget, marks=MARKS) for budget in (24, 3))
    for one, other in zip(whole, short, strict=True):
        assert other.tokens == one.tokens[:3]
        assert other.cut == (len(one.tokens) >= 3)
        assert not one.cut


def test_names_are_scored_in_one_pass_as_one_by_one(taught: EarthGPTX, encoded: Encoded) -> None:
    names, sep = ["ship", "shipyard", "tank", "a tank of oil"], taught.vocabulary.mark("sep")
    past = read_prefix(taught, encoded)
    asked = [taught.refer(image, "a") for image in range(3)]
    trie = Trie(taught.vocabulary, names)
    states, slots = read(taught, encoded, past, asked, len(trie.tokens))
    together = likelihoods(taught, states, slots, trie)
    for row, branch in enumerate(asked):
        for col, name in enumerate(names):
            tail = [*taught.vocabulary.encode(name), sep]
            [state], _ = read(
                taught,
                encoded,
                past,
                [Branch(branch.image, (*branch.tokens, *tail), branch.regions)],
            )
            with torch.inference_mode():
                scored = taught.language.logits(state).log_softmax(dim=-1)
            places = range(len(state) - len(tail) - 1, len(state) - 1)
            alone = torch.stack(
                [scored[place, token] for place, token in zip(places, tail, strict=True)]
            ).mean()
            assert together[row, col] == pytest.approx(float(alone), abs=1e-4)
