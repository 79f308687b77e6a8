"""A saved ML Program executed, operation by operation, on any machine.

Semantics are those of MIL's definitions (``kernels``), with types as the file declares them: every
result is rounded to its declared type and must have its declared shape. Where that type has 16
bits, the operation gets its operands, and computes, in 32 and rounds once. Core ML's own units may
add up in 16 bits or in another order, see :mod:`edgemix.targets.coreml.precision`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from edgemix.errors import EdgemixError, InputError, UnsupportedError
from edgemix.targets.coreml.kernels import KERNELS
from edgemix.targets.coreml.kernels.base import Kernel
from edgemix.targets.coreml.package import Package
from edgemix.targets.coreml.values import Kind, kind, value

MOST_TURNS = 1_000_000
"""Of a loop, after which it is taken to be endless."""

_NARROW = (torch.float16, torch.bfloat16)
_CONTROL: Mapping[str, tuple[tuple[str, ...], int]] = {
    "cond": (("pred",), 2), "while_loop": (("loop_vars",), 2),
    "read_state": (("input",), 0), "write_state": (("input", "data"), 0),
}  # fmt: skip
"""What each of them reads, and how many blocks it has."""

Watch = Callable[[str, str, Any], None]
"""Called with the type of an operation, the name of its result, and the result."""


@dataclass(frozen=True)
class _State:
    name: str


@dataclass(frozen=True)
class _Step:
    """One operation, with all about it looked up."""

    type: str
    kernel: Kernel | None
    """None of control flow and states."""
    fixed: Mapping[str, Any]
    """Arguments that are constants, as the kernel wants them."""
    loose: Mapping[str, tuple[Any, ...]]
    """The others: names of values, or constants among them."""
    outputs: tuple[tuple[str, Kind], ...]
    blocks: tuple[_Block, ...] = ()

    @property
    def where(self) -> str:
        """For messages."""
        return f"operation {self.type} '{self.outputs[0][0] if self.outputs else ''}'"


@dataclass(frozen=True)
class _Name:
    """A value that an operation or an input gives."""

    text: str


@dataclass(frozen=True)
class _Block:
    inputs: tuple[tuple[str, Kind], ...]
    steps: tuple[_Step, ...]
    outputs: tuple[Any, ...]
    """Names, or constants."""
    dead: tuple[tuple[str, ...], ...]
    """After each step, what no later one reads."""


@dataclass
class Evaluator:
    """One function of a package, ready to run."""

    inputs: Mapping[str, Kind]
    states: Mapping[str, Kind]
    gives: Mapping[str, Kind]
    _block: _Block = field(repr=False)

    @classmethod
    def load(cls, package: Package, function: str = "main") -> Evaluator:
        """Read a function: constants are looked up, compressed weights decompressed.

        Raises:
            InputError: the program is damaged, or lacks the function.
            UnsupportedError: operations that edgemix does not know; all of them are named.
        """
        if function not in package.program.functions:
            names = ", ".join(sorted(package.program.functions)) or "none"
            raise InputError(f"{package.path.name} has no function {function!r}, but {names}")
        found = package.program.functions[function]
        if found.opset not in found.block_specializations:
            raise InputError(f"{package.path.name} has no block for its opset {found.opset!r}")
        block = found.block_specializations[found.opset]
        _know(block)
        kinds = {i.name: kind(i.type) for i in found.inputs}
        read = _Reader(package).block(block, kinds, {})
        # Some models give one value twice.
        gives = dict(zip(block.outputs, read.outputs, strict=True))
        return cls(
            inputs={n: k for n, k in kinds.items() if not k.state},
            states={n: k for n, k in kinds.items() if k.state},
            gives=_given(block, kinds),
            _block=replace(read, outputs=tuple(gives.values())),
        )

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, in the program's order."""
        return tuple(self.gives)

    def start(self) -> dict[str, Tensor]:
        """States as they are before the first step: zeros."""
        return {
            name: torch.zeros([n or 1 for n in k.shape], dtype=k.held)
            for name, k in self.states.items()
        }

    def run(
        self,
        inputs: Mapping[str, Tensor],
        states: dict[str, Tensor] | None = None,
        watch: Watch | None = None,
    ) -> dict[str, Any]:
        """The outputs by name.

        Args:
            inputs: a tensor for every input; each is rounded to the input's type.
            states: their values, changed in place; zeros if not given.
            watch: sees every result.

        Raises:
            InputError: an input is missing or has another shape, or an operation fails.
        """
        env: dict[str, Any] = {}
        for name, expected in self.inputs.items():
            if name not in inputs:
                raise InputError(f"the model's input {name!r} is missing")
            env[name] = _checked(inputs[name], expected, f"the input {name!r}")
        held = self.start() if states is None else states
        env |= {name: _State(name) for name in self.states}
        with torch.no_grad():
            found = _Run(held, watch).block(self._block, env)
        return dict(zip(self.outputs, found, strict=True))


def operations(block: Any) -> list[Any]:
    """Every operation of a block and of the blocks in it."""
    found = []
    for op in block.operations:
        found.append(op)
        for inner in op.blocks:
            found += operations(inner)
    return found


def _given(block: Any, inputs: Mapping[str, Kind]) -> dict[str, Kind]:
    """The types of a block's outputs."""
    made = {o.name: kind(o.type) for op in block.operations for o in op.outputs}
    return {name: (made | dict(inputs))[name] for name in block.outputs}


def _know(block: Any) -> None:
    known = {"const", *KERNELS, *_CONTROL}
    unknown = sorted({op.type for op in operations(block)} - known)
    if unknown:
        raise UnsupportedError(
            f"edgemix does not evaluate the operation{'s' * (len(unknown) > 1)} "
            f"{', '.join(unknown)}"
        )


class _Reader:
    """From protobuf to steps. Constants are shared: a file's data are mapped once."""

    def __init__(self, package: Package) -> None:
        self._package = package

    def block(self, block: Any, outer: Mapping[str, Kind], constants: Mapping[str, Any]) -> _Block:
        known = dict(constants)
        inputs = tuple((i.name, kind(i.type)) for i in block.inputs)
        names = {*outer, *(name for name, _ in inputs)}
        kinds = dict(outer) | dict(inputs)
        steps: list[_Step] = []
        for op in block.operations:
            outputs = tuple((o.name, kind(o.type)) for o in op.outputs)
            if op.type == "const":
                if len(outputs) != 1:
                    raise InputError("the program has a constant without a name")
                known[outputs[0][0]] = self._constant(op, outputs[0])
                continue
            step = self._step(op, outputs, names, kinds, known)
            if op.type.startswith("constexpr_") and not step.loose:
                with torch.no_grad():
                    results = _computed(step, {})
                known |= {n: r for (n, _), r in zip(outputs, results, strict=True)}
                continue
            steps.append(step)
            names |= {name for name, _ in outputs}
            kinds |= dict(outputs)
        missing = [n for n in block.outputs if n not in names and n not in known]
        if missing:
            raise InputError(f"the program gives {', '.join(missing)}, which nothing computes")
        gives = tuple(known.get(n, _Name(n)) if n in known else _Name(n) for n in block.outputs)
        return _Block(inputs, tuple(steps), gives, _dead(steps, block.outputs))

    def _constant(self, op: Any, output: tuple[str, Kind]) -> Any:
        name, _ = output
        where = f"the constant '{name}'"
        if "val" not in op.attributes:
            raise InputError(f"{where} has no value")
        return value(op.attributes["val"], self._package.weights, where)

    def _step(
        self,
        op: Any,
        outputs: tuple[tuple[str, Kind], ...],
        names: set[str],
        kinds: Mapping[str, Kind],
        known: Mapping[str, Any],
    ) -> _Step:
        where = f"operation {op.type} '{outputs[0][0] if outputs else ''}'"
        bound: dict[str, tuple[Any, ...]] = {}
        for parameter, argument in op.inputs.items():
            bound[parameter] = tuple(
                self._bound(b, names, known, where) for b in argument.arguments
            )
        # Before iOS 18 the operands of constexpr operations are attributes.
        for parameter, stored in op.attributes.items():
            if parameter != "name" and op.type.startswith("constexpr_"):
                bound[parameter] = (value(stored, self._package.weights, where),)
        inner = tuple(self.block(b, kinds, known) for b in op.blocks)
        if op.type in _CONTROL:
            step = _Step(op.type, None, {}, bound, outputs, inner)
            _fits_together(step, kinds)
            return step
        kernel = KERNELS[op.type]
        _accepts(kernel, bound, where)
        fixed = {p: v for p, v in bound.items() if not any(isinstance(x, _Name) for x in v)}
        return _Step(
            op.type,
            kernel,
            {p: _argument(kernel, p, v, where) for p, v in fixed.items()},
            {p: v for p, v in bound.items() if p not in fixed},
            outputs,
        )

    def _bound(self, binding: Any, names: set[str], known: Mapping[str, Any], where: str) -> Any:
        if binding.WhichOneof("binding") == "value":
            return value(binding.value, self._package.weights, where)
        name = binding.name
        if name in known:
            return known[name]
        if name not in names:
            raise InputError(f"{where} reads {name!r}, which nothing before it gives")
        return _Name(name)


def _fits_together(step: _Step, kinds: Mapping[str, Kind]) -> None:
    """Control flow whose blocks take and give what is around them."""
    reads, count = _CONTROL[step.type]
    fits = len(step.blocks) == count and all(step.loose.get(p) for p in reads)
    if fits and step.type == "cond":
        fits = all(len(block.outputs) == len(step.outputs) for block in step.blocks)
    elif fits and step.type == "while_loop":
        condition, body = step.blocks
        ends = (condition.inputs, body.inputs, body.outputs, step.outputs)
        fits = all(len(end) == len(step.loose["loop_vars"]) for end in ends)
        fits = fits and len(condition.outputs) == 1
    elif fits:
        state = step.loose["input"][0]
        fits = isinstance(state, _Name) and state.text in kinds and kinds[state.text].state
    if not fits:
        raise InputError(f"{step.where} is damaged: its parts do not fit together")


def _accepts(kernel: Kernel, bound: Mapping[str, Any], where: str) -> None:
    unknown = sorted(set(bound) - set(kernel.takes))
    if unknown:
        raise UnsupportedError(f"{where} has {', '.join(unknown)}, which edgemix does not know")
    missing = sorted(kernel.required - set(bound))
    if missing:
        raise InputError(f"{where} lacks {', '.join(missing)}")


def _argument(kernel: Kernel, parameter: str, values: Sequence[Any], where: str) -> Any:
    if not kernel.moves:
        values = [_widened(v) for v in values]
    try:
        return kernel.takes[parameter](values)
    except EdgemixError as error:
        raise InputError(f"{where}: its {parameter} is {error.what}") from error


def _widened(value: Any) -> Any:
    if isinstance(value, Tensor) and value.dtype in _NARROW:
        return value.to(torch.float32)
    return value


def _dead(steps: Sequence[_Step], outputs: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    kept, found = set(outputs), []
    for step in reversed(steps):
        reads = _reads(step)
        found.append(tuple(sorted(reads - kept)))
        kept |= reads
    return tuple(reversed(found))


def _reads(step: _Step) -> set[str]:
    own = {v.text for values in step.loose.values() for v in values if isinstance(v, _Name)}
    for block in step.blocks:
        for inner in block.steps:
            own |= _reads(inner)
        own |= {v.text for v in block.outputs if isinstance(v, _Name)}
    return own


_FAILURES = (
    RuntimeError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError,
)  # fmt: skip
"""What torch and Python raise of operands that an operation does not take."""


def _computed(step: _Step, loose: Mapping[str, Any]) -> tuple[Any, ...]:
    """The results of a kernel, each in its declared type and shape."""
    assert step.kernel is not None
    try:
        found = step.kernel.function(**step.fixed, **loose)
    except EdgemixError as error:
        raise type(error)(f"{step.where}: {error.what}", do=error.do) from error
    except _FAILURES as error:
        raise InputError(f"{step.where} fails: {error}") from error
    results = found if isinstance(found, tuple) else (found,)
    if len(results) < len(step.outputs):
        raise InputError(f"{step.where} gives {len(results)} results, not {len(step.outputs)}")
    pairs = zip(results, step.outputs, strict=False)
    return tuple(_checked(r, k, f"{step.where}: its result '{n}'") for r, (n, k) in pairs)


def _checked(found: Any, expected: Kind, where: str) -> Any:
    held = expected.held
    if held is None or not isinstance(found, Tensor):
        return found
    fits = expected.variadic or (
        len(expected.shape) == found.ndim
        and all(
            want is None or want == has
            for want, has in zip(expected.shape, found.shape, strict=True)
        )
    )
    if not fits:
        raise InputError(f"{where} has the shape {list(found.shape)}, declared is {expected}")
    return found.to(held)


@dataclass
class _Run:
    """One call: its states, and who watches."""

    states: dict[str, Tensor]
    watch: Watch | None

    def block(self, block: _Block, env: dict[str, Any]) -> list[Any]:
        for step, dead in zip(block.steps, block.dead, strict=True):
            for (name, _), result in zip(step.outputs, self._step(step, env), strict=False):
                env[name] = result
                if self.watch is not None:
                    self.watch(step.type, name, result)
            for name in dead:
                env.pop(name, None)
        return [_looked_up(v, env) for v in block.outputs]

    def _step(self, step: _Step, env: dict[str, Any]) -> Sequence[Any]:
        values = {p: [_looked_up(v, env) for v in vs] for p, vs in step.loose.items()}
        if step.kernel is not None:
            read = partial(_argument, step.kernel, where=step.where)
            return _computed(step, {p: read(p, vs) for p, vs in values.items()})
        if step.type == "read_state":
            return [self.states[values["input"][0].name]]
        if step.type == "write_state":
            self.states[values["input"][0].name] = values["data"][0]
            return []
        if step.type == "cond":
            chosen = step.blocks[0 if _true(values["pred"][0], step) else 1]
            return self.block(chosen, dict(env))
        return self._loop(step, list(values["loop_vars"]), env)

    def _loop(self, step: _Step, now: list[Any], env: dict[str, Any]) -> list[Any]:
        condition, body = step.blocks
        for _ in range(MOST_TURNS):
            inner = {n: v for (n, _), v in zip(condition.inputs, now, strict=True)}
            if not _true(self.block(condition, {**env, **inner})[0], step):
                return now
            inner = {n: v for (n, _), v in zip(body.inputs, now, strict=True)}
            now = self.block(body, {**env, **inner})
        raise InputError(f"{step.where} does not end within {MOST_TURNS:,} turns")


def _true(value: Any, step: _Step) -> bool:
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise InputError(f"{step.where} does not decide by a single value")
    return bool(value)


def _looked_up(value: Any, env: Mapping[str, Any]) -> Any:
    return env[value.text] if isinstance(value, _Name) else value
