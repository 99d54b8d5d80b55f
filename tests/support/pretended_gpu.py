"""A GPU that is not there: tensors compute on the CPU with their true values, and what mixes devices fails as on one.

PyTorch's own fake tensors have no values, and on a build without CUDA an autograd pass over fake CUDA tensors ends the
process. Here a mode sees every call of PyTorch from Python. It knows which storages are on the pretended GPU, answers
``.device`` accordingly, and refuses what CUDA refuses: operands on two devices (a CPU tensor without dimensions may
stand beside others), an index on the GPU into a tensor on the CPU, a draw on another device than its generator's,
and ``numpy()`` of a tensor on the GPU. It does not see inside PyTorch's own functions, nor which functions have no CUDA
kernel.
"""

import contextlib
from collections import deque
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

CUDA = torch.device("cuda", 0)
_GET = Tensor.__getitem__, Tensor.__setitem__
_MOVES = Tensor.copy_, torch._foreach_copy_
_TO_HOST = Tensor.numpy, Tensor.__array__, Tensor.data_ptr
_ANY_DEVICE = ("__set__", "__deepcopy__", "_has_compatible_shallow_copy_type", "backward")
"""Names of functions that take tensors of two devices: setters of attributes, and checks before they are set."""
_JOINS = torch.stack, torch.cat, torch.hstack, torch.vstack, torch.concat


class Generator(torch.Generator):
    """A generator on the pretended GPU, or on the CPU."""

    pretended = torch.device("cpu")

    def __new__(cls, device: Any = "cpu") -> "Generator":
        made = super().__new__(cls)
        made.pretended = torch.device(device)
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return CUDA if self.pretended.type == "cuda" else self.pretended


class PretendedGpu(TorchFunctionMode):
    """Inside the block ``cuda`` is a device: ``tensor.to("cuda")``, ``torch.zeros(3, device="cuda")``, and so on."""

    def __init__(self) -> None:
        super().__init__()
        self._there: dict[int, Any] = {}  # storages, kept alive so that no address is used twice

    def holds(self, tensor: Tensor) -> bool:
        """Whether a tensor is on the pretended GPU."""
        return _storage(tensor)._cdata in self._there

    def _put(self, result: Any, there: bool = True) -> Any:
        for tensor in _tensors(result):
            storage = _storage(tensor)
            if there:
                self._there[storage._cdata] = storage
            else:
                self._there.pop(storage._cdata, None)
        return result

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func == Tensor.device.__get__:  # type: ignore[attr-defined]
            return CUDA if self.holds(args[0]) else func(*args)
        if func == Tensor.is_cuda.__get__:  # type: ignore[attr-defined]
            return self.holds(args[0])
        given = _tensors((args, kwargs))
        there = [self.holds(tensor) for tensor in given]
        if func in (Tensor.to, Tensor.cpu, Tensor.cuda):
            return self._moved(func, args, kwargs)
        if func in _TO_HOST and any(there):
            raise TypeError("can't convert cuda:0 device type tensor to numpy: copy it to the CPU first")
        if func == Tensor.register_hook:
            return func(args[0], self._inside(args[1]))
        wanted = _cuda(kwargs.get("device"))
        if kwargs.get("device") is not None:
            kwargs["device"] = "cpu"
        self._refuse_two_devices(func, args, given, there)
        result = func(*args, **kwargs)
        if wanted is not None:
            self._put(result, wanted)
        elif any(there) and not (func in _MOVES or getattr(func, "__name__", "") == "__set__"):
            self._put(result)
        if isinstance(own := kwargs.get("generator"), torch.Generator):
            drawn = _tensors(result)
            if drawn and self.holds(drawn[0]) != (own.device.type == "cuda"):
                raise RuntimeError(f"Expected a '{own.device.type}' device type for generator of {func.__name__}")
        return result

    def _refuse_two_devices(self, func: Any, args: Any, given: list[Tensor], there: list[bool]) -> None:
        name = getattr(func, "__name__", str(func))
        if not any(there) or all(there) or func in _MOVES or name in _ANY_DEVICE:
            return
        if func in _GET:
            indices = _tensors(args[1])
            if not self.holds(args[0]) and any(map(self.holds, indices)):
                raise RuntimeError(f"{name}: indices should be on the same device as the indexed tensor (cpu)")
            values = _tensors(args[2:])
            if not indices or all(self.holds(v) == self.holds(args[0]) or v.dim() == 0 for v in values):
                return  # without tensors as index it is a copy
        elif all(one or (tensor.dim() == 0 and func not in _JOINS) for tensor, one in zip(given, there, strict=True)):
            return
        raise RuntimeError(f"{name}: expected all tensors on the same device, but found cuda:0 and cpu")

    def _moved(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        tensor, rest = args[0], list(args[1:])
        target = {Tensor.cpu: False, Tensor.cuda: True}.get(func)
        for key, value in [*enumerate(rest), *kwargs.items()]:
            if isinstance(value, Tensor):
                target = self.holds(value)
            elif (there := _cuda(value)) is not None:
                target = there
                (rest if isinstance(key, int) else kwargs)[key] = torch.device("cpu")  # type: ignore[index]
        made = tensor.to(*rest, **kwargs) if func == Tensor.to else tensor
        if target is None or target == self.holds(tensor):
            return self._put(made, self.holds(tensor))
        return self._put(made.clone() if made is tensor else made, target)

    def _inside(self, hook: Any) -> Any:
        """A gradient's hook runs in PyTorch's backward pass, where the mode is off: on again for our part of it."""

        def seen(gradient: Tensor) -> Any:
            with self:
                return hook(self._put(gradient))

        return seen


def _storage(tensor: Tensor) -> Any:
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):  # of vmap and grad
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor.untyped_storage()


def _tensors(tree: Any) -> list[Tensor]:
    """The tensors in a call's arguments or result, in order; torch's own `tree_leaves` takes twice as long."""
    found: list[Tensor] = []
    waiting = [tree]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Tensor):
            found.append(one)
        elif isinstance(one, tuple | list | deque):  # also named results, as those of torch.linalg.eigh
            waiting += reversed(one)
        elif isinstance(one, dict):
            waiting += reversed(one.values())
    return found


def _cuda(device: Any) -> bool | None:
    """Whether a device is a GPU; None for what is no device."""
    if isinstance(device, str) and device.partition(":")[0] not in ("cpu", "cuda", "meta"):
        return None
    return torch.device(device).type == "cuda" if isinstance(device, str | torch.device) else None


@contextlib.contextmanager
def pretended_gpu(monkeypatch: Any) -> Any:
    """The mode, with what else of PyTorch asks for a GPU: whether there is one, name, memory, generators on it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (2**30, 2**30))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "a pretended GPU")
    monkeypatch.setattr(torch, "Generator", Generator)
    with PretendedGpu() as mode:
        yield mode
