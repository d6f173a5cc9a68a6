"""What every optimizer shares: groups of parameters, their gradients, one backend call a step, a state to save."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np

from .. import replay
from ..backends.contract import Array, Backend
from ..backends.registry import active_on
from ..nn.module import clear_gradient
from ..tensor import Tensor

Group = dict[str, Any]


class Optimizer:
    """Base of the optimizers. ``parameters`` is any iterable of leaf Tensors that require a gradient, or of groups:
    dicts with such Tensors as "params" and options of their own, which take the place of the arguments.

    ``param_groups`` has the groups with all their options; an option changed there holds from the next step on.
    Raises ValueError for an empty iterable, a parameter given twice and options that are out of range, TypeError for
    what is no such Tensor or no such option.
    """

    kind: ClassVar[str]  # of the contract's OPTIMIZERS
    keeps: ClassVar[tuple[str, ...]]  # its states, in the contract's order
    begins: ClassVar[Mapping[str, float]] = {}  # what fills a state at first, where that is not 0
    counts: ClassVar[bool]  # whether its numbers depend on how many steps a parameter has made

    def __init__(self, parameters: Iterable[Tensor] | Iterable[Mapping[str, Any]], **options: Any) -> None:
        name = type(self).__name__
        _check_iterable(name, parameters)
        given: list[Any] = list(parameters)
        if not any(isinstance(g, Mapping) for g in given):
            given = [{"params": given}]
        self.param_groups: list[Group] = []
        for group in given:
            unknown = set(group) - {"params", *options}
            if "params" not in group or unknown:
                raise TypeError(
                    f"{name}: a group has 'params' and may have {', '.join(options)}, received {set(group)}"
                )
            _check_iterable(name, group["params"])
            self.param_groups.append({**options, **group, "params": list(group["params"])})
        self.parameters: list[Tensor] = [p for group in self.param_groups for p in group["params"]]
        if not self.parameters:
            raise ValueError(f"{name}: there are no parameters to train")
        for i, parameter in enumerate(self.parameters):
            if not isinstance(parameter, Tensor):
                raise TypeError(f"{name}: parameter {i} must be a Tensor, received {type(parameter).__name__}")
            if parameter.node is not None:
                raise TypeError(f"{name}: parameter {i} of shape {parameter.shape} is a result, not a leaf")
        if len({id(p) for p in self.parameters}) != len(self.parameters):
            raise ValueError(f"{name}: a parameter is given twice")
        for group in self.param_groups:
            self.check(group)
        self._options = tuple(options)
        self._group_of = [i for i, group in enumerate(self.param_groups) for _ in group["params"]]
        self._steps = [0] * len(self.parameters)
        self._states: dict[str, list[Array | None]] = {state: [None] * len(self.parameters) for state in self.keeps}
        self._hyper: dict[tuple[int, str, int, int], tuple[tuple[float, ...], Array]] = {}

    def check(self, options: Group) -> None:
        """Raise ValueError for options of a group that are out of range."""
        raise NotImplementedError

    def hyper(self, options: Group, step: int) -> tuple[float, ...]:
        """The contract's numbers for a step, the first being 1, but for the gradient scale, which is last."""
        raise NotImplementedError

    def used(self, options: Group) -> tuple[str, ...]:
        """The states that a group needs."""
        return self.keeps

    def apply(
        self,
        backend: Backend,
        group: Group,
        parameters: Sequence[Array],
        gradients: Sequence[Array],
        states: Sequence[Array],
        hyper: Array,
    ) -> None:
        """One step of parameters of a group that share their numbers; the states as in the contract."""
        backend.optimizer_step(self.kind, parameters, gradients, states, hyper)

    @property
    def lr(self) -> float:
        """The learning rate of the next step, of the first group; setting it sets that of all groups."""
        return float(self.param_groups[0]["lr"])

    @lr.setter
    def lr(self, value: float) -> None:
        for group in self.param_groups:
            self.check({**group, "lr": value})
        for group in self.param_groups:
            group["lr"] = float(value)

    def step(self, gradient_scale: float = 1.0) -> None:
        """Change every parameter that has a gradient, by its gradient times ``gradient_scale``. Raises ValueError where
        a gradient does not fit its parameter."""
        calls: dict[tuple[int, type, Any, int], list[int]] = {}  # what can share the contract's numbers
        for i, parameter in enumerate(self.parameters):
            grad = parameter.grad
            if grad is None:
                continue
            p, gradient = parameter.data, grad.data
            if gradient.shape != p.shape or gradient.dtype != p.dtype:
                raise ValueError(
                    f"{type(self).__name__}: parameter {i} is {p.shape} {p.dtype}, its gradient {gradient.shape}"
                    f" {gradient.dtype}"
                )
            calls.setdefault((self._group_of[i], type(p), p.dtype, self._steps[i]), []).append(i)
        for (group, _, _, steps), indices in calls.items():
            device = self.parameters[indices[0]].device
            self._step_on(self.param_groups[group], device, steps + 1, indices, gradient_scale)

    def _step_on(self, group: Group, device: str, step: int, indices: list[int], gradient_scale: float) -> None:
        backend = active_on(device)
        states: list[Array] = []
        for name in self.used(group):
            kept = self._states[name]
            for i in indices:
                state = kept[i]
                if state is None:
                    begin = partial(_full_like, self.parameters[i], self.begins.get(name, 0.0))
                    state = kept[i] = replay.lasting(begin)
                states.append(state)
        self.apply(
            backend,
            group,
            [self.parameters[i].data for i in indices],
            [self.parameters[i].grad.data for i in indices],  # type: ignore[union-attr]
            states,
            self._hyper_on(device, indices[0], (*self.hyper(group, step), gradient_scale))
            if replay.current() is None
            else self._captured_hyper(backend, group, indices, states, gradient_scale),
        )
        replay.every_time(partial(self._count_step, indices))

    def _count_step(self, indices: list[int]) -> None:
        for i in indices:
            self._steps[i] += self.counts
            self.parameters[i].bump_version()

    def _captured_hyper(
        self, backend: Backend, group: Group, indices: list[int], states: list[Array], gradient_scale: float
    ) -> Array:
        """The contract's numbers for a step of ``replay``: what they are then, before every replay."""

        def values() -> np.ndarray:
            self.check(group)
            return np.array((*self.hyper(group, self._steps[indices[0]] + 1), gradient_scale), np.float32)

        def check_states() -> None:
            found = [self._states[name][i] for name in self.used(group) for i in indices]
            if len(found) != len(states) or any(a is not b for a, b in zip(found, states, strict=True)):
                raise RuntimeError(
                    f"{type(self).__name__}: its states are not those of the captured step, after load_state_dict or a"
                    " momentum that became 0 or stopped being 0; call reset() on the graph"
                )

        if (step := replay.current()) is not None:
            step.check(check_states)
        return replay.fresh(backend, values)

    def _hyper_on(self, device: str, first: int, values: tuple[float, ...]) -> Array:
        """The contract's numbers of the call that begins with parameter ``first``, in an array of the device that stays
        in place, rewritten where they change."""
        key = (self._group_of[first], device, first, len(values))
        if key not in self._hyper or self._hyper[key][0] != values:
            array = active_on(device).to_device(np.array(values, np.float32))
            if key in self._hyper:
                self._hyper[key][1][...] = array
                array = self._hyper[key][1]
            self._hyper[key] = (values, array)
        return self._hyper[key][1]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of the parameters, or fill them with 0."""
        for parameter in self.parameters:
            clear_gradient(parameter, set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """What ``load_state_dict`` needs to go on bit for bit: each option, a list of one value a group where there are
        several; for each parameter each state, a copy or None, and where they count the "steps" made."""
        state: dict[str, Any] = {}
        for option in self._options:
            values = [group[option] for group in self.param_groups]
            state[option] = values[0] if len(values) == 1 else values
        for name, kept in self._states.items():
            state[name] = [
                None if array is None else np.array(active_on(p.device).to_host(array))
                for p, array in zip(self.parameters, kept, strict=True)
            ]
        if self.counts:
            state["steps"] = list(self._steps)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over options, states and steps. Raises ValueError, changing nothing, where they do not fit."""
        name = f"{type(self).__name__}.load_state_dict"
        missing = {*self._options, *self.keeps, *(["steps"] if self.counts else [])} - state.keys()
        if missing:
            raise ValueError(f"{name}: the state lacks {', '.join(sorted(missing))}")
        count = len(self.param_groups)
        options = {o: [state[o]] if count == 1 else list(state[o]) for o in self._options}
        steps = [int(n) for n in state["steps"]] if self.counts else self._steps
        if any(len(values) != count for values in options.values()) or len(steps) != len(self.parameters):
            raise ValueError(f"{name}: {count} groups of {len(self.parameters)} parameters in all expected")
        expected = [p.shape for p in self.parameters]
        for kept in self.keeps:
            arrays = list(state[kept])
            received = [None if a is None else np.shape(a) for a in arrays]
            if len(arrays) != len(expected) or any(r not in (None, e) for r, e in zip(received, expected, strict=True)):
                raise ValueError(f"{name}: {kept} of shapes {expected} expected, {received} received")
        groups = [{**group, **{o: options[o][i] for o in options}} for i, group in enumerate(self.param_groups)]
        new = object.__new__(type(self))
        Optimizer.__init__(new, groups, **{o: values[0] for o, values in options.items()})
        for kept in self.keeps:
            new._states[kept] = [
                None if a is None else active_on(p.device).to_device(np.array(a, _state_dtype(p), order="C"))
                for p, a in zip(self.parameters, state[kept], strict=True)
            ]
        new._steps = steps
        self.__dict__.update(new.__dict__)

    def require_at_least_0(self, options: Group, *names: str) -> None:
        """Raise ValueError unless each of the options is finite and at least 0."""
        for option in names:
            if not math.isfinite(options[option]) or options[option] < 0:
                raise ValueError(
                    f"{type(self).__name__}: {option} must be a finite number, 0 or above, received {options[option]}"
                )

    def require_betas(self, options: Group) -> None:
        """Raise ValueError unless ``betas`` are two numbers in [0, 1)."""
        if len(options["betas"]) != 2 or not all(0 <= beta < 1 for beta in options["betas"]):
            raise ValueError(f"{type(self).__name__}: betas must be two numbers in [0, 1), received {options['betas']}")


def _full_like(parameter: Tensor, value: float) -> Array:
    """A state of a parameter at its beginning"""
    backend = active_on(parameter.device)
    state = backend.empty(parameter.shape, _state_dtype(parameter))
    backend.fill(state, value)
    return state


def _state_dtype(parameter: Tensor) -> np.dtype[Any]:
    """float32 beside a parameter of 2 bytes: a state sums many small terms, which float16 and bfloat16 would drop"""
    return np.dtype(np.float32) if parameter.dtype.itemsize == 2 else parameter.dtype


def _check_iterable(optimizer: str, parameters: Any) -> None:
    """Raise TypeError for a module, or for a Tensor, which is an iterable of its rows."""
    if isinstance(parameters, Tensor) or not isinstance(parameters, Iterable):
        raise TypeError(
            f"{optimizer}: parameters must be an iterable of Tensors, such as model.parameters(), received a"
            f" {type(parameters).__name__}"
        )
