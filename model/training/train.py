"""One stage over one mixture: AdamW, a warm-up and a cosine, an average of the weights, checkpoints that go on bit by bit.

What a run leaves in its folder: `model/` (the average, as any other model's folder), `checkpoint.pt` (all that is
needed to go on), `metrics.jsonl`, `tensorboard/`, `pictures/`.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Dataset

from model.config import SCALES, preset
from model.earthgptx import EarthGPTX
from model.errors import ConfigError
from model.evaluation.calibration import fitted_offset, fitted_temperature
from model.memory import keep_memory
from model.pretrained import Parts, assemble
from model.tokens import Vocabulary
from model.training.config import TrainConfig
from model.training.mixture import Mixture
from model.training.objective import Ground, losses
from model.training.record import Record
from model.training.samples import Sample
from model.training.team import Team
from model.weights import from_pretrained, save_pretrained

CALIBRATED = 120
"""Held-out images that the temperature and the offset of masks are fitted on."""
FOCAL_EVERY = 4
"""One batch of so many is of crops with the wider view beside them."""
HELD_OUT = 2**40
"""Number of the first sample that is looked at in pictures and never taught."""


def train(config: TrainConfig, out: Path, on_step: Callable[[int, dict[str, float]], None] = lambda *_: None) -> None:
    """Train a model, or go on where the folder's checkpoint ends; with others where torch's process group is up.

    Args:
        config: of the run.
        out: folder of the run.
        on_step: told the steps done and the last losses.

    Raises:
        ConfigError: the folder holds another run's checkpoint, or a batch has fewer images than there are processes.
        DataError: a set cannot be read.
    """
    keep_memory()
    team = Team.joined()
    config.check_shares(team.size)
    out.mkdir(parents=True, exist_ok=True)
    mixture = Mixture.read(config.sources, config.seed)
    run = _Run(config, mixture, out, team)
    batches = (team.part(batch) for batch in _batches(config, run.step))
    loader = DataLoader(
        _Numbers(mixture), batch_sampler=batches, num_workers=config.workers, collate_fn=list,
        prefetch_factor=4 if config.workers else None, worker_init_fn=_alone,
    )  # fmt: skip
    writer = _Metrics(out) if team.leads else None
    started, images = time.monotonic(), 0
    for samples in loader:
        found = run.advance(samples)
        images += len(samples)
        on_step(run.step, found)
        last = run.step == config.steps
        if writer and (run.step % config.log_every == 0 or last):
            speed = team.size * images / (time.monotonic() - started)
            writer.write(run.step, {**found, "lr": float(run.schedule.get_last_lr()[0]), "images_s": speed})
        if run.step % config.checkpoint_every == 0 or last:
            run.save(calibrate=last)
        if config.picture_every and (run.step % config.picture_every == 0 or last):
            run.draw()
    if writer:
        writer.close()


class _Teacher(nn.Module):
    """A model and what teaches it, as one module: a step is one call of it, which sharded weights want."""

    def __init__(self, model: EarthGPTX, ground: Ground, *, together: bool) -> None:
        super().__init__()
        self.model, self.ground, self._together = model, ground, together

    def forward(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        found = losses(self.model, samples, self.ground)
        if self._together:
            # Every weight takes part in every step, though not every image has prompts: processes must not differ in
            # that. The language model's layers, which are sharded again by now, always do.
            here = [weight for weight in self.parameters() if weight.requires_grad and not isinstance(weight, DTensor)]
            every = [weight.reshape(-1)[:1].sum() for weight in here]
            found["total"] = found["total"] + 0 * torch.stack(every).sum()
        return found


class _Run:
    """All that changes while training."""

    def __init__(self, config: TrainConfig, mixture: Mixture, out: Path, team: Team) -> None:
        self._config, self._mixture, self._out, self._team = config, mixture, out, team
        torch.manual_seed(config.seed)
        self._mixed = config.precision == "bf16" and _multiplies_bf16(team.device)
        self.model = _built(config, mixture)
        ground = Ground(mixture.words, self.model.config.mask_width)
        self._teacher = _Teacher(self.model, ground, together=team.size > 1).to(team.device)
        for name, weight in self.model.named_parameters():
            if name.startswith(config.frozen):
                weight.requires_grad = False
        self._average = AveragedModel(self.model, multi_avg_fn=_average(config.ema))
        averaged = cast("EarthGPTX", self._average.module)
        team.share(self._teacher, self.model.language.causal.model.layers)
        team.share(averaged, averaged.language.causal.model.layers)
        self._optimizer = torch.optim.AdamW(_groups(self._teacher, config), config.lr, fused=team.size == 1)
        self.schedule = LambdaLR(self._optimizer, lambda update: _rate(update * config.accumulate, config))
        self.step = 0
        self._load()

    def advance(self, samples: Sequence[Sample]) -> dict[str, float]:
        """One step; the losses."""
        config, model = self._config, self.model
        model.train()
        model.encoders.conv.eval()  # its statistics are those that it was published with: batches are small
        autocast = torch.autocast(model.device.type, torch.bfloat16, enabled=self._mixed)
        # On a processor plain products go backward several times faster than the fused kernel: rows are short.
        kernel = sdpa_kernel(SDPBackend.MATH) if model.device.type == "cpu" else nullcontext()
        with autocast, kernel:
            found: dict[str, Tensor] = self._teacher(samples)
        (found["total"] / config.accumulate).backward()
        self.step += 1
        if self.step % config.accumulate == 0:
            norm = nn.utils.clip_grad_norm_(self._teacher.parameters(), config.clip)
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
            self._average.update_parameters(model)
            found["gradient"] = norm
            self.schedule.step()
        return {name: float(_whole(value.detach())) for name, value in found.items()}

    def averaged(self) -> EarthGPTX | None:
        """What is kept, whole; None but on the leading process. Every process must ask."""
        return self._plain(self._team.weights(self._average.module))

    def _plain(self, held: dict[str, Any]) -> EarthGPTX | None:
        if not self._team.leads:
            return None
        whole = EarthGPTX(self.model.config, self.model.vocabulary)
        whole.load_state_dict(held)
        return whole.to(self._team.device).eval()

    def save(self, *, calibrate: bool) -> None:
        """Write the checkpoint, whole or not at all, and the averaged model; calibrate it on the way."""
        team, teacher = self._team, self._teacher
        held = team.weights(self._average.module)
        state = {
            "config": self._identity(), "step": self.step, "weights": team.weights(teacher),
            "average": held, "updates": int(self._average.n_averaged),
            "moments": team.moments(teacher, self._optimizer), "schedule": self.schedule.state_dict(),
        }  # fmt: skip
        averaged = self._plain(held)
        if averaged is not None:
            path = self._out / "checkpoint.pt"
            torch.save(state, path.with_suffix(".new"))
            path.with_suffix(".new").replace(path)
            if calibrate:
                records = self._held_out(CALIBRATED)
                words = sorted({region.label for record in records for region in record.regions})
                found = {
                    "temperature": round(fitted_temperature(averaged, records, words), 4),
                    "mask_offset": round(fitted_offset(averaged, records), 2),
                }  # fmt: skip
                averaged.config = averaged.config.model_copy(update=found)
            save_pretrained(averaged, self._out / "model", dtype=torch.float16)
        team.wait()

    def draw(self) -> None:
        """Show what the averaged model says of images that it is not taught."""
        from model.training.pictures import draw_answers

        averaged = self.averaged()
        if averaged is not None:
            shown = [("not taught", record) for record in self._held_out(6)]
            draw_answers(averaged, shown, self._out / "pictures" / f"{self.step:06d}.png")
        self._team.wait()

    def _held_out(self, count: int) -> list[Record]:
        return [self._mixture.record(HELD_OUT + number, self._config.sizes[0].px) for number in range(count)]

    def _load(self) -> None:
        path = self._out / "checkpoint.pt"
        if not path.exists():
            return
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["config"] != self._identity():
            raise ConfigError(
                f"{path} is of a run with another config; use another folder, or the config it began with"
            )
        self._team.take_weights(self._teacher, state["weights"])
        self._team.take_weights(self._average.module, state["average"])
        self._team.take_moments(self._teacher, self._optimizer, state["moments"])
        self._average.n_averaged.fill_(state["updates"])
        self.schedule.load_state_dict(state["schedule"])
        self.step = state["step"]

    def _identity(self) -> str:
        """The config but for what only says how a run is watched."""
        watched = {"workers", "log_every", "checkpoint_every", "picture_every"}
        return self._config.model_dump_json(exclude=watched)


def _built(config: TrainConfig, mixture: Mixture) -> EarthGPTX:
    if config.model not in SCALES:
        return from_pretrained(config.model)
    scale = preset(config.model)
    parts = Parts(conv=config.start.conv, vit=config.start.vit, language=config.start.language)
    words = None
    if parts.language is None:
        words = Vocabulary.train(mixture.texts(config.vocabulary_samples), scale.language.vocabulary)
    return assemble(scale, parts, words)


def _multiplies_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return any(has for name, has in torch.cpu.get_capabilities().items() if "bf16" in name)


def _whole(value: Tensor) -> Tensor:
    """A value that may be spread over processes."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def _groups(teacher: _Teacher, config: TrainConfig) -> Iterator[dict[str, Any]]:
    """Weights by learning rate; biases, norms and embeddings do not decay."""
    found: dict[tuple[float, float], list[nn.Parameter]] = {}
    for whole_name, weight in teacher.named_parameters():
        name = whole_name.removeprefix("model.")
        if weight.requires_grad:
            factor = next((f for first, f in config.lr_factors.items() if name.startswith(first)), 1.0)
            decay = 0.0 if weight.ndim < 2 or "embed" in name else config.weight_decay
            found.setdefault((factor, decay), []).append(weight)
    for (factor, decay), weights in found.items():
        yield {"params": weights, "lr": config.lr * factor, "weight_decay": decay}


_Weights = tuple[Tensor, ...] | list[Tensor]


def _average(most: float) -> Callable[[_Weights, _Weights, Tensor | int], None]:
    """An average with a memory that grows to `most`: else a short run would still hold its random start."""

    @torch.no_grad()
    def update(averaged: _Weights, current: _Weights, updates: Tensor | int) -> None:
        decay = min(most, (1 + float(updates)) / (10 + float(updates)))
        for old, new in zip(averaged, current, strict=True):
            if old.is_floating_point():
                old.lerp_(new.to(old.dtype), 1 - decay)
            else:
                old.copy_(new)

    return update


def _rate(step: int, config: TrainConfig) -> float:
    """Part of the learning rate at a step: a straight warm-up, then half a cosine down to a hundredth."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    done = (step - config.warmup) / max(config.steps - config.warmup, 1)
    return 0.01 + 0.99 * (1 + math.cos(math.pi * min(done, 1))) / 2


_Wanted = tuple[int, int, bool]
"""Number of a sample, side of its image, and whether it is a crop with the wider view beside it."""


def _batches(config: TrainConfig, first: int) -> Iterator[list[_Wanted]]:
    """What each step is taught, from a step on."""
    weights = np.array([size.weight for size in config.sizes])
    most = max(size.batch for size in config.sizes)
    for step in range(first, config.steps):
        rng = np.random.default_rng([config.seed, step])
        size = config.sizes[int(rng.choice(len(weights), p=weights / weights.sum()))]
        focal = step % FOCAL_EVERY == FOCAL_EVERY - 1
        yield [(step * most + number, size.px, focal) for number in range(most if focal else size.batch)]


class _Numbers(Dataset[Sample]):
    """The mixture as torch's loader wants it."""

    def __init__(self, mixture: Mixture) -> None:
        self._mixture = mixture

    def __getitem__(self, wanted: _Wanted) -> Sample:
        number, px, focal = wanted
        return self._mixture.focal(number, px) if focal else self._mixture.sample(number, px)


def _alone(_: int) -> None:
    torch.set_num_threads(1)


class _Metrics:
    """The same figures as JSON lines and for TensorBoard."""

    def __init__(self, out: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._lines = (out / "metrics.jsonl").open("a")
        self._board = SummaryWriter(str(out / "tensorboard"))

    def write(self, step: int, figures: dict[str, float]) -> None:
        """Of one step."""
        self._lines.write(
            json.dumps({"step": step, **{name: round(value, 6) for name, value in figures.items()}}) + "\n"
        )
        self._lines.flush()
        for name, value in figures.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Nothing more comes."""
        self._lines.close()
        self._board.close()
