"""Distributes training over processes with FSDP2.

Each process gets a part of every batch and a shard of every weight. A single process is a group of
size 1 and shards nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import fully_shard

Item = TypeVar("Item")
_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """The processes that train one model together, as seen from one of them."""

    rank: int = 0
    """Number of this process, 0..size-1."""
    size: int = 1
    """Number of processes."""

    @classmethod
    def current(cls) -> ProcessGroup:
        """Returns torch's process group, or a group of size 1 if none is initialised."""
        if not dist.is_available() or not dist.is_initialized():
            return cls()
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def is_leader(self) -> bool:
        """Whether this is the leading process, which writes the files of the run."""
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """Device of this process."""
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device(
            "cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()
        )

    def part(self, batch: Sequence[Item]) -> list[Item]:
        """Returns this process's part of a batch."""
        return list(batch[self.rank :: self.size])

    def shard(self, module: nn.Module, layers: Iterable[nn.Module]) -> None:
        """Shards the weights of a module: each layer separately, the rest together."""
        if self.size == 1:
            return
        for weight in module.parameters():  # FSDP2 accepts only contiguous weights
            weight.data = weight.data.contiguous()
        for layer in layers:
            fully_shard(layer)
        fully_shard(module)

    def weights(self, module: nn.Module) -> dict[str, Any]:
        """Returns the unsharded weights on the leading process; every process must call it."""
        return get_model_state_dict(module, options=_WHOLE)

    def load_weights(self, module: nn.Module, state: dict[str, Any]) -> None:
        """Loads the leading process's weights; other processes' `state` is not used."""
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=self.size > 1)
        set_model_state_dict(module, state if self.is_leader else {}, options=options)

    def optimizer_state(
        self, module: nn.Module, optimizer: torch.optim.Optimizer
    ) -> dict[str, Any]:
        """Returns the unsharded state on the leading process; every process must call it."""
        return get_optimizer_state_dict(module, optimizer, options=_WHOLE)

    def load_optimizer_state(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]
    ) -> None:
        """Loads the leading process's optimizer state; other processes' `state` is not used."""
        # Not strict: weights that no image has used yet have no moments.
        options = StateDictOptions(
            full_state_dict=True, broadcast_from_rank0=self.size > 1, strict=False
        )
        set_optimizer_state_dict(
            module, optimizer, state if self.is_leader else {}, options=options
        )

    def wait(self) -> None:
        """Waits until all processes get here."""
        if self.size > 1:
            dist.barrier()
