"""Trains a model on one mixture, with AdamW, warm-up, cosine schedule and averaged weights.

A run resumes from its checkpoint with bit-identical results. It writes `model/` (a model folder
with the averaged weights), `checkpoint.pt` (the state needed to resume), `metrics.jsonl`,
`tensorboard/` and `pictures/`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from earthgptx.model.checkpoint.pretrained import PretrainedParts, assemble
from earthgptx.model.checkpoint.weights import from_pretrained, save_pretrained
from earthgptx.model.datasets.record import Record
from earthgptx.model.evaluation.calibration import fitted_offset, fitted_temperature
from earthgptx.model.interface.allocator import tune_allocator
from earthgptx.model.interface.config import SCALES, preset
from earthgptx.model.interface.errors import ConfigError
from earthgptx.model.network.earthgptx import EarthGPTX
from earthgptx.model.network.tokens import Vocabulary
from earthgptx.model.samples.mixture import Mixture
from earthgptx.model.samples.sample import Sample
from earthgptx.model.training.batches import NumberedSamples, batches, use_one_thread
from earthgptx.model.training.config import TrainConfig
from earthgptx.model.training.distributed import ProcessGroup
from earthgptx.model.training.ground_head import GroundHead
from earthgptx.model.training.metrics_log import MetricsLog
from earthgptx.model.training.objective import ObjectiveModule
from earthgptx.model.training.schedule import growing_average, parameter_groups, rate_at

CALIBRATED = 120
"""Held-out images for fitting the temperature and the mask offset."""
HELD_OUT = 2**40
"""Number of the first held-out sample, for pictures and calibration; training stays below it."""


def train(
    config: TrainConfig,
    out: Path,
    on_step: Callable[[int, dict[str, float]], None] = lambda *_: None,
) -> None:
    """Trains a model, or resumes from the checkpoint in the folder.

    If torch's process group is initialised, all its processes train together.

    Args:
        config: config of the run.
        out: folder of the run.
        on_step: called after each step with the number of steps done and the losses.

    Raises:
        ConfigError: the checkpoint in the folder is of a run with another config, or a batch has
            fewer images than there are processes.
        DataError: a dataset cannot be read.
    """
    tune_allocator()
    group = ProcessGroup.current()
    config.check_shares(group.size)
    out.mkdir(parents=True, exist_ok=True)
    mixture = Mixture.read(config.sources, config.seed)
    run = _Run(config, mixture, out, group)
    own_batches = (group.part(batch) for batch in batches(config, run.step))
    loader = DataLoader(
        NumberedSamples(mixture),
        batch_sampler=own_batches,
        num_workers=config.workers,
        collate_fn=list,
        prefetch_factor=4 if config.workers else None,
        worker_init_fn=use_one_thread,
    )
    writer = MetricsLog(out) if group.is_leader else None
    started, images = time.monotonic(), 0
    for samples in loader:
        found = run.advance(samples)
        images += len(samples)
        on_step(run.step, found)
        last = run.step == config.steps
        if writer and (run.step % config.log_every == 0 or last):
            speed = group.size * images / (time.monotonic() - started)
            writer.write(
                run.step, {**found, "lr": float(run.schedule.get_last_lr()[0]), "images_s": speed}
            )
        if run.step % config.checkpoint_every == 0 or last:
            run.save(calibrate=last)
        if config.picture_every and (run.step % config.picture_every == 0 or last):
            run.draw()
    if writer:
        writer.close()


class _Run:
    """State of a training run: weights, their average, optimizer, schedule and step."""

    def __init__(
        self, config: TrainConfig, mixture: Mixture, out: Path, group: ProcessGroup
    ) -> None:
        self._config, self._mixture, self._out, self._group = config, mixture, out, group
        torch.manual_seed(config.seed)
        self._mixed = config.precision == "bf16" and _multiplies_bf16(group.device)
        self.model = _built(config, mixture)
        ground = GroundHead(mixture.words, self.model.config.mask_width)
        self._objective = ObjectiveModule(self.model, ground, together=group.size > 1).to(
            group.device
        )
        for name, weight in self.model.named_parameters():
            if name.startswith(config.frozen):
                weight.requires_grad = False
        self._average = AveragedModel(self.model, multi_avg_fn=growing_average(config.ema))
        averaged = cast("EarthGPTX", self._average.module)
        group.shard(self._objective, self.model.language.causal.model.layers)
        group.shard(averaged, averaged.language.causal.model.layers)
        self._optimizer = torch.optim.AdamW(
            parameter_groups(self._objective, config), config.lr, fused=group.size == 1
        )
        self.schedule = LambdaLR(
            self._optimizer, lambda update: rate_at(update * config.accumulate, config)
        )
        self.step = 0
        self._load()

    def advance(self, samples: Sequence[Sample]) -> dict[str, float]:
        """Runs one step; returns its losses, and the gradient norm if it updated the weights."""
        config, model = self._config, self.model
        model.train()
        model.encoders.conv.eval()  # keeps the published statistics: batches are too small
        autocast = torch.autocast(model.device.type, torch.bfloat16, enabled=self._mixed)
        # On CPUs, the backward pass of plain products is several times faster than that of the
        # fused kernel, since sequences are short.
        kernel = sdpa_kernel(SDPBackend.MATH) if model.device.type == "cpu" else nullcontext()
        with autocast, kernel:
            found: dict[str, Tensor] = self._objective(samples)
        (found["total"] / config.accumulate).backward()
        self.step += 1
        if self.step % config.accumulate == 0:
            norm = nn.utils.clip_grad_norm_(self._objective.parameters(), config.clip)
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
            self._average.update_parameters(model)
            found["gradient"] = norm
            self.schedule.step()
        return {name: float(_whole(value.detach())) for name, value in found.items()}

    def averaged(self) -> EarthGPTX | None:
        """Returns the averaged model, unsharded; None except on the leading process.

        Every process must call it.
        """
        return self._plain(self._group.weights(self._average.module))

    def _plain(self, held: dict[str, Any]) -> EarthGPTX | None:
        if not self._group.is_leader:
            return None
        whole = EarthGPTX(self.model.config, self.model.vocabulary)
        whole.load_state_dict(held)
        return whole.to(self._group.device).eval()

    def save(self, *, calibrate: bool) -> None:
        """Writes the checkpoint atomically, and the averaged model.

        Args:
            calibrate: whether to fit temperature and mask offset of the averaged model first.
        """
        group, objective = self._group, self._objective
        held = group.weights(self._average.module)
        state = {
            "config": self._identity(),
            "step": self.step,
            "weights": group.weights(objective),
            "average": held,
            "updates": int(self._average.n_averaged),
            "moments": group.optimizer_state(objective, self._optimizer),
            "schedule": self.schedule.state_dict(),
        }
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
                }
                averaged.config = averaged.config.model_copy(update=found)
            save_pretrained(averaged, self._out / "model", dtype=torch.float16)
        group.wait()

    def draw(self) -> None:
        """Draws the answers of the averaged model for held-out images."""
        from earthgptx.model.training.pictures import draw_answers

        averaged = self.averaged()
        if averaged is not None:
            shown = [("not taught", record) for record in self._held_out(6)]
            draw_answers(averaged, shown, self._out / "pictures" / f"{self.step:06d}.png")
        self._group.wait()

    def _held_out(self, count: int) -> list[Record]:
        return [
            self._mixture.record(HELD_OUT + number, self._config.sizes[0].px)
            for number in range(count)
        ]

    def _load(self) -> None:
        path = self._out / "checkpoint.pt"
        if not path.exists():
            return
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["config"] != self._identity():
            raise ConfigError(
                f"{path} is of a run with another config; "
                "use another folder, or the config it began with"
            )
        self._group.load_weights(self._objective, state["weights"])
        self._group.load_weights(self._average.module, state["average"])
        self._group.load_optimizer_state(self._objective, self._optimizer, state["moments"])
        self._average.n_averaged.fill_(state["updates"])
        self.schedule.load_state_dict(state["schedule"])
        self.step = state["step"]

    def _identity(self) -> str:
        """Returns the config as JSON, without the keys that do not affect the trained weights."""
        watched = {"workers", "log_every", "checkpoint_every", "picture_every"}
        return self._config.model_dump_json(exclude=watched)


def _built(config: TrainConfig, mixture: Mixture) -> EarthGPTX:
    if config.model not in SCALES:
        return from_pretrained(config.model)
    scale = preset(config.model)
    parts = PretrainedParts(
        conv=config.start.conv, vit=config.start.vit, language=config.start.language
    )
    words = None
    if parts.language is None:
        words = Vocabulary.train(
            mixture.texts(config.vocabulary_samples), scale.language.vocabulary
        )
    return assemble(scale, parts, words)


def _multiplies_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return any(has for name, has in torch.cpu.get_capabilities().items() if "bf16" in name)


def _whole(value: Tensor) -> Tensor:
    """Returns a value unsharded."""
    return value.full_tensor() if isinstance(value, DTensor) else value
