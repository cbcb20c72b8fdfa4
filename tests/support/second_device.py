"""A second device in pure Python: data lie in main memory, mixing devices raises as on CUDA.

Tensors on "simgpu" are wrappers that say so; every operation on them goes through `_run`, which
raises where CUDA would (operands on different devices) and counts what makes CUDA wait for the
host: `.item()` and its kin, and copies to main memory. Autograd works on it; autocast does nothing.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _disable_current_modes,
    return_and_correct_aliasing,
)
from torch.utils._pytree import tree_flatten, tree_map

from trainer.models.backbones import pipeline

NAME = "simgpu"
registration: Any = backend_registration  # private names of torch, without types


class _Backend(registration._DummyBackendModule):  # type: ignore[misc]
    """What torch asks of a device's module."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def is_available(self) -> bool:
        return True

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0


registration._setup_privateuseone_for_python_backend(NAME, backend_module=_Backend())
DEVICE = torch.device(f"{NAME}:0")
CPU = torch.device("cpu")
aten: Any = torch.ops.aten
COPIES = {aten.copy_.default, aten._to_copy.default, aten.set_.source_Tensor}
INDEXING = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
    aten._unsafe_index.Tensor,
    aten._unsafe_index_put.default,
}
ALL_OPERANDS = ("aten.cat", "aten.stack")  # even scalars have to be on the device
make_tensor: Callable[..., Tensor] = torch.tensor
convert: Callable[..., Tensor] = torch.as_tensor


class OnDevice(Tensor):
    """A tensor that says it is on the device."""

    raw: Tensor

    @staticmethod
    def __new__(cls, raw: Tensor) -> OnDevice:
        made: OnDevice = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            raw.size(),
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            device=DEVICE,
        )
        made.raw = raw
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnDevice({self.raw})"

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError(f"can't convert {NAME} device type tensor to numpy. Use Tensor.cpu() first")

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __getitem__(self, index: Any) -> Tensor:
        """Lists become indices in main memory, which CUDA takes as well."""
        parts = index if isinstance(index, tuple) else (index,)
        parts = tuple(make_tensor(p) if isinstance(p, list) else p for p in parts)
        return super().__getitem__(parts)

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _run(func, args, kwargs or {})


class SecondDevice(TorchDispatchMode):
    """The mode in which the device exists. waits: what the host waited for, by line."""

    waits: ClassVar[Counter[str]] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        there = any(isinstance(x, OnDevice) for x in tree_flatten((args, kwargs))[0])
        if there or _is_device(kwargs.get("device")):
            return _run(func, args, kwargs)
        return func(*args, **kwargs)


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """One operation: on the raw tensors, if CUDA would do it."""
    flat = tree_flatten((args, kwargs))[0]
    here = [x for x in flat if isinstance(x, OnDevice)]
    elsewhere = [x for x in flat if isinstance(x, Tensor) and not isinstance(x, OnDevice)]
    if here and elsewhere and func not in COPIES:
        _require_one_device(func, args, elsewhere)
    onto = bool(here)
    if (device := kwargs.get("device")) is not None:
        onto = _is_device(device)
        kwargs = {**kwargs, "device": CPU if onto else device}
    if func is aten.copy_.default:
        onto = isinstance(args[0], OnDevice)
    if func is aten._local_scalar_dense.default and here:
        SecondDevice.waits[_line()] += 1
    if func in COPIES and here and not onto:
        SecondDevice.waits[_line()] += 1
    raw_args, raw_kwargs = tree_map(
        lambda x: x.raw if isinstance(x, OnDevice) else x, (args, kwargs)
    )
    out = func(*raw_args, **raw_kwargs)
    if not onto:
        return out
    out = tree_map(lambda x: OnDevice(x) if type(x) is Tensor else x, out)
    try:
        return return_and_correct_aliasing(func, args, kwargs, out)
    except Exception:  # a copy onto the device has nothing to alias
        return out


def _require_one_device(func: Any, args: Any, elsewhere: list[Tensor]) -> None:
    name = str(func)
    wrong = [x for x in elsewhere if x.ndim > 0]  # CUDA takes scalars from the host
    if func in INDEXING:  # and indices
        wrong = [x for x in wrong if not any(x is index for index in args[1] or [])]
    writes = name.split(".")[1].endswith("_") or func in INDEXING
    if name.startswith(ALL_OPERANDS) or (writes and type(args[0]) is Tensor):
        wrong = elsewhere
    if wrong:
        shapes = [tuple(x.shape) for x in wrong]
        raise RuntimeError(
            f"Expected all tensors to be on the same device: {name} has {shapes} on the CPU "
            f"({_line()})"
        )


def _is_device(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


def _line() -> str:
    """The innermost line of the trainer that is running."""
    for frame in reversed(traceback.extract_stack()):
        if "/trainer/" in frame.filename and "site-packages" not in frame.filename:
            return f"{frame.filename.split('/trainer/')[-1]}: {frame.line}"
    return "?"


def _tensor(data: Any, *, device: Any = None, **kwargs: Any) -> Tensor:
    """torch.tensor, which does not pass through a mode."""
    if _is_device(device):
        return make_tensor(data, **kwargs).to(device)
    return make_tensor(data, **kwargs, **({} if device is None else {"device": device}))


def _as_tensor(data: Any, *args: Any, device: Any = None, **kwargs: Any) -> Tensor:
    """torch.as_tensor, likewise."""
    if not _is_device(device):
        return convert(data, *args, device=device, **kwargs)
    return convert(data, *args, **kwargs).to(device)


class _LoadedInMemory:
    """The library diffusers, whose pipelines are loaded before they are moved to the device."""

    def __getattr__(self, name: str) -> Any:
        part = getattr(self.library, name)
        if not name.endswith("Pipeline"):
            return part

        class Loader:
            @staticmethod
            def from_pretrained(*args: Any, **kwargs: Any) -> Any:
                with pytest.MonkeyPatch.context() as patch, _disable_current_modes():
                    patch.setattr(torch, "tensor", make_tensor)
                    return part.from_pretrained(*args, **kwargs)

        return Loader

    library = pipeline.DIFFUSERS


@contextmanager
def second_device() -> Iterator[type[SecondDevice]]:
    """The device exists inside the block; what it counts starts at zero."""
    SecondDevice.waits.clear()
    with pytest.MonkeyPatch.context() as patch, SecondDevice():
        patch.setattr(torch, "tensor", _tensor)
        patch.setattr(torch, "as_tensor", _as_tensor)
        patch.setattr(pipeline, "DIFFUSERS", _LoadedInMemory())
        yield SecondDevice
