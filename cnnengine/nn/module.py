"""Module: a function with parameters. It keeps track of them, of buffers and of the modules it is built from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Self

import numpy as np

from ..backends.contract import Array
from ..backends.registry import active_on
from ..tensor import Tensor
from .hooks import Hooks, RemovableHandle, changes
from .parameter import Parameter
from .state import described, shortened


class Module:
    """Base of all layers and models: assign parameters, buffers and modules to attributes, define ``forward``.

    Names, ``state_dict`` and hooks are as in PyTorch. ``super().__init__()`` comes first in a subclass's ``__init__``.
    """

    training: bool

    def __init__(self) -> None:
        object.__setattr__(self, "_parameters", {})
        object.__setattr__(self, "_buffers", {})
        object.__setattr__(self, "_modules", {})
        object.__setattr__(self, "_forward_hooks", {})
        object.__setattr__(self, "_forward_pre_hooks", {})
        object.__setattr__(self, "_thawed", {})
        object.__setattr__(self, "training", True)

    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor]
    _modules: dict[str, Module]
    _forward_hooks: Hooks
    _forward_pre_hooks: Hooks
    _thawed: dict[str, tuple[bool, bool]]  # of a frozen module: each parameter's requires_grad and writeable before

    def forward(self, *inputs: Any) -> Any:
        """What the module computes; defined by subclasses."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward")

    def __call__(self, *inputs: Any) -> Any:
        """Runs ``forward`` between the hooks."""
        if not self._forward_hooks and not self._forward_pre_hooks:
            return self.forward(*inputs)
        for pre_hook in list(self._forward_pre_hooks.values()):
            changed = pre_hook(self, inputs)
            if changed is not None:
                inputs = changed if isinstance(changed, tuple) else (changed,)
        output = self.forward(*inputs)
        for hook in list(self._forward_hooks.values()):
            changed = hook(self, inputs, output)
            if changed is not None:
                output = changed
        return output

    # ---- attributes

    def __setattr__(self, name: str, value: Any) -> None:
        if "_parameters" not in self.__dict__:
            raise RuntimeError(f"{type(self).__name__}: call super().__init__() before assigning {name}")
        store: dict[str, Any] | None = None
        if isinstance(value, Parameter):
            store = self._parameters
        elif isinstance(value, Module):
            store = self._modules
        elif name in self._parameters and value is None:
            store = self._parameters
        elif name in self._buffers and isinstance(value, Tensor):
            store = self._buffers
        elif name in self._parameters or name in self._modules or name in self._buffers:
            raise TypeError(f"{type(self).__name__}.{name} is registered; cannot assign a {type(value).__name__} to it")
        changes[0] += store is self._modules or name == "forward"
        if store is None:
            object.__setattr__(self, name, value)
            return
        if name not in store:
            self._forget(name)
        store[name] = value

    def __getattr__(self, name: str) -> Any:
        # reached only where ordinary lookup has failed
        for store in ("_parameters", "_buffers", "_modules"):
            entries = self.__dict__.get(store, {})
            if name in entries:
                return entries[name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        changes[0] += 1
        if name in self.__dict__:
            object.__delattr__(self, name)
        elif not self._forget(name):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def _forget(self, name: str) -> bool:
        stores = [s for s in (self.__dict__, self._parameters, self._buffers, self._modules) if name in s]
        for store in stores:
            del store[name]
        return bool(stores)

    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        """Add a parameter under ``name``; None marks one that this instance does without, such as a bias."""
        if parameter is None:
            self._parameters[name] = None
        else:
            setattr(self, name, parameter)

    def register_buffer(self, name: str, buffer: Tensor) -> None:
        """Add a Tensor that is saved with the weights but not trained, such as a running mean."""
        self._forget(name)
        self._buffers[name] = buffer

    # ---- walking

    def children(self) -> Iterator[Module]:
        """The modules assigned to this one, in order."""
        yield from self._modules.values()

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module (named ``prefix``) and all below it, each once, with dotted names."""
        yield from self._named_modules(prefix, set())

    def _named_modules(self, prefix: str, seen: set[int]) -> Iterator[tuple[str, Module]]:
        if id(self) in seen:
            return
        seen.add(id(self))
        yield prefix, self
        for name, child in self._modules.items():
            yield from child._named_modules(_join(prefix, name), seen)

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        for _, module in self.named_modules():
            yield module

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """All parameters with dotted names, a shared one once."""
        seen: set[int] = set()
        for prefix, module in self.named_modules():
            for name, parameter in module._parameters.items():
                if parameter is not None and id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield _join(prefix, name), parameter

    def parameters(self) -> Iterator[Parameter]:
        """All parameters, in the order of ``named_parameters``."""
        for _, parameter in self.named_parameters():
            yield parameter

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """All buffers with dotted names."""
        for prefix, module in self.named_modules():
            for name, buffer in module._buffers.items():
                yield _join(prefix, name), buffer

    def buffers(self) -> Iterator[Tensor]:
        """All buffers."""
        for _, buffer in self.named_buffers():
            yield buffer

    def apply(self, function: Callable[[Module], object]) -> Self:
        """Call ``function`` on every module below this one, then on this one; returns self."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    # ---- weights

    def state_dict(self) -> dict[str, Tensor]:
        """Parameters and buffers by dotted name, detached: they share memory with the module."""
        state = {name: parameter.detach() for name, parameter in self.named_parameters()}
        return state | {name: buffer.detach() for name, buffer in self.named_buffers()}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Copy arrays or Tensors of any float dtype and device into the parameters and buffers of the same name.

        With ``strict`` the names must agree; without it names on one side only are passed over. Raises ValueError
        listing missing and unexpected names and mismatched shapes, a few of each kind where there are many, with a
        guess at the cause; and TypeError for what is no array of numbers. Either way nothing is changed.
        """
        own: dict[str, Tensor] = dict(self.named_parameters()) | dict(self.named_buffers())
        arrays = {name: _as_host(name, state[name]) for name in own if name in state}
        mismatched = [name for name, array in arrays.items() if array.shape != own[name].shape]
        expected = {name: tensor.shape for name, tensor in own.items()}
        received = {name: np.shape(value) for name, value in state.items()}
        faults = described(expected, received, mismatched, strict)
        frozen = [name for name in arrays if name not in mismatched and not _writeable(own[name].data)]
        faults += shortened("frozen", [f"{name} is frozen: call unfreeze() first" for name in frozen])
        if faults:
            raise ValueError(f"load_state_dict into {type(self).__name__}:\n  " + "\n  ".join(faults))
        for name, array in arrays.items():
            tensor = own[name]
            tensor.data[...] = active_on(tensor.device).to_device(array.astype(tensor.dtype))
            tensor.bump_version()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or fill them with 0."""
        for parameter in self.parameters():
            clear_gradient(parameter, set_to_none)

    def freeze(self) -> Self:
        """For inference: evaluation mode, no gradients, read-only weights, convolutions prepared for their shapes.

        A frozen convolution keeps its weight in the order its backend reads it, once for every input size it meets.
        Returns self; ``unfreeze`` undoes it.
        """
        for module in self.eval().modules():
            module._set_frozen(True)
        return self

    def unfreeze(self) -> Self:
        """Make the weights writeable and trainable again; the mode stays evaluation until ``train()``."""
        for module in self.modules():
            module._set_frozen(False)
        return self

    def fuse(self) -> Self:
        """For inference: ``freeze()`` after every batch norm was folded into the convolution in front of it, which then
        does the activation and the residual behind it in one pass; see ``nn.fuse``. Returns self.

        Results change by roundings. The norms are gone, and their names from ``state_dict()``: load weights before.
        Raises RuntimeError in training mode.
        """
        from .fuse import fuse

        fuse(self)
        return self

    def conv_norm_pairs(self) -> Iterable[tuple[str, str]]:
        """Names of children, a convolution and the norm of its result, that ``fuse()`` may fold; see ``nn.fuse``."""
        return ()

    def _set_frozen(self, frozen: bool) -> None:
        for name, parameter in self._parameters.items():
            if parameter is None:
                continue
            if frozen:
                self._thawed.setdefault(name, (parameter.requires_grad, _writeable(parameter.data)))
                parameter.requires_grad = writeable = False
            else:
                parameter.requires_grad, writeable = self._thawed.pop(name, (parameter.requires_grad, True))
            if isinstance(parameter.data, np.ndarray):  # CuPy's arrays have no such flag
                parameter.data.flags.writeable = writeable

    # ---- state

    def train(self, mode: bool = True) -> Self:
        """Set training mode (dropout drops) for this module and all below; returns self."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """``train(False)``."""
        return self.train(False)

    def to(self, device: str) -> Self:
        """Move parameters, their gradients and buffers to "cpu" or "cuda", in place; returns self."""
        for tensor in [*self.parameters(), *self.buffers()]:
            if tensor.device != device:
                tensor.data = tensor.detach().to(device).data
                tensor.bump_version()
            if tensor.grad is not None:
                tensor.grad = tensor.grad.to(device)
        return self

    # ---- hooks

    def register_forward_pre_hook(self, hook: Callable[[Module, tuple[Any, ...]], Any]) -> RemovableHandle:
        """``hook(module, inputs)`` runs before ``forward``; what it returns replaces the inputs."""
        return RemovableHandle(self._forward_pre_hooks, hook)

    def register_forward_hook(self, hook: Callable[[Module, tuple[Any, ...], Any], Any]) -> RemovableHandle:
        """``hook(module, inputs, output)`` runs after ``forward``; what it returns replaces the output."""
        return RemovableHandle(self._forward_hooks, hook)

    # ---- text

    def extra_repr(self) -> str:
        """What ``repr`` shows between the parentheses; defined by layers."""
        return ""

    def __repr__(self) -> str:
        if not self._modules:
            return f"{type(self).__name__}({self.extra_repr()})"
        lines = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self._modules.items()]
        return f"{type(self).__name__}(\n  " + "\n  ".join(lines) + "\n)"


def clear_gradient(tensor: Tensor, set_to_none: bool) -> None:
    """``tensor.grad = None``, or all zeros where it is kept."""
    if set_to_none:
        tensor.grad = None
    elif tensor.grad is not None:
        active_on(tensor.grad.device).fill(tensor.grad.data, 0.0)


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _writeable(array: Array) -> bool:
    return not isinstance(array, np.ndarray) or array.flags.writeable


def _as_host(name: str, value: Any) -> np.ndarray:
    array = value.numpy() if isinstance(value, Tensor) else np.asarray(value)
    if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
        raise TypeError(
            f"load_state_dict: {name} is not an array of numbers but {type(value).__name__} ({array.dtype})"
        )
    return array


def is_plain(module: Module) -> bool:
    """Whether a call of the module is its class's ``forward`` and nothing else."""
    return not (module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__)
