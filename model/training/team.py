"""The processes that train one model together: each has a part of every batch and a shard of every weight (FSDP2).

One process is a team of one, and shards nothing.
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
class Team:
    """Who takes part."""

    rank: int = 0
    size: int = 1

    @classmethod
    def joined(cls) -> Team:
        """The team that torch's process group is; of one where there is none."""
        if not dist.is_available() or not dist.is_initialized():
            return cls()
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def leads(self) -> bool:
        """Whether this process writes the run's files."""
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """Of this process."""
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())

    def part(self, batch: Sequence[Item]) -> list[Item]:
        """What of a batch is this process's."""
        return list(batch[self.rank :: self.size])

    def share(self, module: nn.Module, layers: Iterable[nn.Module]) -> None:
        """Shard a module's weights: layers one by one, the rest together."""
        if self.size == 1:
            return
        for weight in module.parameters():  # FSDP2 takes no other order of a weight's values
            weight.data = weight.data.contiguous()
        for layer in layers:
            fully_shard(layer)
        fully_shard(module)

    def weights(self, module: nn.Module) -> dict[str, Any]:
        """The whole weights, on the leading process; every process must ask."""
        return get_model_state_dict(module, options=_WHOLE)

    def take_weights(self, module: nn.Module, state: dict[str, Any]) -> None:
        """Set weights from the leading process's."""
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=self.size > 1)
        set_model_state_dict(module, state if self.leads else {}, options=options)

    def moments(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """The optimizer's whole state, on the leading process; every process must ask."""
        return get_optimizer_state_dict(module, optimizer, options=_WHOLE)

    def take_moments(self, module: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Set the optimizer's state from the leading process's."""
        # Not strict: weights that no image has used yet have no moments.
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=self.size > 1, strict=False)
        set_optimizer_state_dict(module, optimizer, state if self.leads else {}, options=options)

    def wait(self) -> None:
        """For all others."""
        if self.size > 1:
            dist.barrier()
