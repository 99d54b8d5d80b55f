"""The bare program's processes: forked once, weights and sums in shared memory, the longest clients first."""

import multiprocessing
import os
from collections.abc import Sequence
from multiprocessing.connection import Connection
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fedimb.errors import RunFailed

if TYPE_CHECKING:
    from fedimb.bench.bare import BareClients

_LOOK_S = 5.0


class BareWorkers:
    """So many forked processes over one set of clients; a context manager.

    Args:
        clients: inherited by the processes with their rows, which are not copied.
        weights: the global weights, one tensor per parameter; moved to shared memory and updated in place.
        count: processes; 0: none, and `round` is not to be called.
    """

    def __init__(self, clients: "BareClients", weights: Sequence[Tensor], count: int) -> None:
        self._clients, self._weights = clients, weights
        self._sums: list[list[Tensor]] = []
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []
        if not count:
            return
        context = multiprocessing.get_context("fork")
        self._next = context.Value("i", 0)
        for weight in weights:
            weight.share_memory_()
        for _ in range(count):
            sums = [torch.zeros_like(w, dtype=torch.float64).share_memory_() for w in weights]
            here, there = context.Pipe()
            process = context.Process(target=self._work, args=(there, sums), daemon=True)
            process.start()
            there.close()  # the worker's end: when it dies, reading here fails instead of waiting for ever
            self._sums.append(sums)
            self._pipes.append(here)
            self._processes.append(process)

    def _work(self, pipe: Connection, sums: list[Tensor]) -> None:
        torch.set_num_threads(1)
        parent = os.getppid()
        while True:
            while not pipe.poll(_LOOK_S):
                if os.getppid() != parent:  # killed: nobody is left to send the end
                    return
            if (order := pipe.recv()) is None:
                return
            server_round, cohort = order
            for summed in sums:
                summed.zero_()
            total = 0
            while (turn := self._take()) < len(cohort):
                total += self._clients.train_all([cohort[turn]], server_round, self._weights, sums)
            pipe.send(total)

    def _take(self) -> int:
        with self._next.get_lock():
            turn = int(self._next.value)
            self._next.value = turn + 1
        return turn

    def round(self, cohort: Sequence[int], server_round: int) -> None:
        """Train a cohort and make ``weights`` its weighted mean. Raises RunFailed when a worker has ended."""
        ordered = sorted(cohort, key=lambda k: -len(self._clients.data[k][1]))
        self._next.value = 0
        try:
            for pipe in self._pipes:
                pipe.send((server_round, ordered))
            total = sum(pipe.recv() for pipe in self._pipes)
        except (EOFError, OSError) as error:
            raise RunFailed(f"a process of the bare program ended in round {server_round}; is memory short?") from error
        for i, weight in enumerate(self._weights):
            summed = self._sums[0][i]
            for sums in self._sums[1:]:
                summed = summed + sums[i]
            weight.copy_(summed / total)

    def __enter__(self) -> "BareWorkers":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            if error is None:
                pipe.send(None)
                process.join()
            else:
                process.terminate()
