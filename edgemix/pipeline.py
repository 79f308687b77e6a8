"""deploy(): the order of the steps, with the reason beside each, and nothing else."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from edgemix import (
    __version__,
    data,
    diagnosis,
    family,
    files,
    proof,
    reshaping,
    rewrites,
    sources,
    targets,
)
from edgemix import endurance as endure
from edgemix.data import Data
from edgemix.encoding import Encoding
from edgemix.errors import InputError
from edgemix.evidence import write_evidence
from edgemix.extras import versions
from edgemix.latency.budget import LATENCY, Budget, Figures, Verdict, judge_all
from edgemix.latency.device import called
from edgemix.latency.estimator import Device, Estimator
from edgemix.latency.host import environment
from edgemix.latency.resources import RESOURCES
from edgemix.order import Listener, Order, Silence
from edgemix.program import Program
from edgemix.proof import Contract, Fidelity
from edgemix.quantize.calibrate import Calibration
from edgemix.quantizing import BATCH, Outcome, quantized, recipe_of
from edgemix.remedies import Advisor
from edgemix.report import build, schema
from edgemix.report.html import render
from edgemix.rollout import Rollout
from edgemix.shapes import Reshaped
from edgemix.stray import explained
from edgemix.targets.base import Arrays, Artifact, Countable, OpPrecision, Signing, Target

_NAMED = 5
"""Operators that a message lists; the report has all."""


def deploy(
    order: Order, listener: Listener | None = None, estimator: Estimator | None = None
) -> schema.Report:
    """Take a model to artifacts on several targets, each proven against one quantized program.

    Everything is written into ``order.out`` at the end, or nothing is.

    Args:
        order: what is wanted.
        listener: hears of the progress.
        estimator: whom to ask for times on ``order.devices``.

    Raises:
        InputError: an argument, a file or the data cannot be used.
        UnsupportedError: a target cannot take a node; the findings say which and why.
        ToolError: a third-party tool failed.
    """
    say = listener or Silence()
    # Cheap checks first: nothing is computed for an order that cannot be carried out.
    files.check_output_folder(order.out, force=order.force)
    order.hardware.check()
    chosen = [
        targets.load(name, order.hardware, order.shipping) for name in dict.fromkeys(order.targets)
    ]
    if not chosen:
        raise InputError(
            "there is no target to deploy to", do=f"name one of {', '.join(targets.TARGETS)}"
        )
    names = tuple(t.name for t in chosen)
    if order.shapes and not set(names) & set(targets.FLEXIBLE):
        raise InputError(
            f"--shapes is for {' and '.join(targets.FLEXIBLE)}, which --to does not name",
            do="leave it out, or add the target",
        )
    recipe = recipe_of(order)
    fpga = tuple(name for name in names if name in targets.FPGA)
    devices = _devices(order, names, estimator)
    budgets = tuple(Budget.parse(text, names, fpga, tuple(devices)) for text in order.budgets)
    asked = _contracts(order, chosen)
    if family.is_family(order.source):
        with say.step(f"choose of {order.source}"):
            member = family.choose(Path(order.source), budgets, devices, recipe, names, estimator)
            order = replace(order, source=str(member.path))

    targets.prepare(names)
    with say.step(f"load {order.source}"):
        source = sources.load(order.source, step=order.step, chunk=order.chunk, unroll=order.unroll)
        _one_input(source)
        steps = bool(source.states)
        held_out = data.load(
            order.evaluate, source.inputs[0], steps=steps, most=order.evaluate_samples
        )
        if order.evaluate_samples is not None:
            held_out = held_out.head(order.evaluate_samples)
    further = _further(order, source, say)
    shipping = replace(order.shipping, shapes=further)
    chosen = [targets.load(name, order.hardware, shipping) for name in names]
    made = quantized(order, source, chosen, say, held_out, devices, estimator)
    program, coded = made.program, made.quantized
    contracts = {t.name: asked.get(t.name) or t.promise(coded) for t in chosen}
    x = held_out.tensor()
    with say.step("run the program", len(x)) as done:
        float_outputs = _run(program if source.quantized else source, x, done, 0.3).numpy()
        expected = _run(coded, x, done, 0.7).numpy()
    with say.step("find where the quality goes"):
        layers = diagnosis.layers(program, coded, x[: diagnosis.enough(coded)])
    endurance = None
    if steps:
        with say.step(f"run {order.stream} steps without a reset"):
            endurance = _Endurance.of(program, coded, held_out, order.stream)

    with files.whole_folder(order.out) as out:
        coded.save(out / "program.edgemix")
        if made.calibration is not None:
            made.calibration.save(out / "calibration.safetensors")
        # Converters mostly wait on their own imports: two at a time. Times are measured after all.
        with ThreadPoolExecutor(max_workers=2) as pool:
            artifacts = list(pool.map(lambda t: _make(t, coded, out, held_out, say), chosen))
        figures = {
            target.name: replace(
                _figures(target, artifact, out / target.name, order, budgets, say),
                on={
                    name: estimator.estimate(coded, device, target.name)
                    for name, device in devices.items()
                    if estimator is not None and target.name in device.targets
                },
            )
            for target, (artifact, _, _) in zip(chosen, artifacts, strict=True)
        }
        advisor = Advisor(
            program, coded, recipe_of(order), made.calibration, {t.name: t for t in chosen},
            figures, devices, estimator,
        )  # fmt: skip
        gates = judge_all(budgets, figures, fpga, advisor.advice)
        results = []
        for target, (artifact, found, precision) in zip(chosen, artifacts, strict=True):
            folder = out / target.name
            followed: tuple[Verdict, ...] = ()
            if endurance is not None and found is not None:
                with say.step(f"{target.title}: {order.stream} steps", 1.0) as progress:
                    followed = endurance.followed_by(
                        target, artifact, folder, contracts[target.name], progress
                    )
            fidelity = None
            if found is not None:
                fidelity = proof.compare(
                    expected,
                    found[0],
                    coded.output_encodings[0],
                    contracts[target.name],
                    labels=held_out.labels,
                    float_outputs=float_outputs,
                )
                fidelity = explained(fidelity, coded, x, expected, target.name)
            times = [
                b.limit
                for b in budgets
                if b.what == LATENCY and b.device is None and b.of(target.name, fpga)
            ]
            followed += tuple(
                _on_shape(target, artifact, folder, contracts[target.name], coded, change, x, say)
                for change in (further if target.name in targets.FLEXIBLE else ())
            )
            verdicts = (
                *_verdicts(order, target, fidelity, precision), *followed, *gates[target.name],
            )  # fmt: skip
            if isinstance(target, Signing) and fidelity is not None:
                with say.step(f"{target.title}: write what was proven"):
                    target.sign(artifact, folder, _proven(target, fidelity, verdicts))
            write_evidence(
                folder, target, artifact, coded,
                None if made.calibration is None else made.calibration.data, held_out.samples,
                expected, None if found is None else found[0], contracts[target.name],
            )  # fmt: skip
            results.append(
                build.target(
                    target,
                    artifact,
                    folder,
                    fidelity,
                    precision,
                    figures[target.name],
                    min(times, default=None),
                    verdicts,
                )
            )
        report = schema.Report(
            edgemix=__version__,
            command=shlex.join(order.command),
            model=build.model(coded, diagnosis.multiply_accumulates(program)),
            recipe=made.recipe,
            calibration=_calibrated(made),
            evaluation=schema.Evaluation(
                source=held_out.source,
                samples=len(held_out),
                has_labels=held_out.labels is not None,
                float_accuracy=_accuracy(float_outputs, held_out),
                program_accuracy=_accuracy(expected, held_out),
                program_sqnr_db=proof.sqnr_db(float_outputs, expected),
            ),
            pruning=made.pruning,
            effects=tuple(schema.Effect(**asdict(e)) for e in made.effects),
            layers=tuple(_layer(q) for q in layers),
            states=() if endurance is None else endurance.results(),
            warnings=(
                *made.warnings(),
                *_undefined(coded, x, float_outputs, expected),
                *_warnings(made.calibration, held_out, endurance),
            ),
            left_float=tuple(str(w) for w in diagnosis.left_float(coded)),
            targets=tuple(results),
            environment={**environment(), **versions("torch", "torchao", "numpy", "edgemix")},
            passed=all(v.passed for r in results for v in r.verdicts),
        )
        files.write_text(out / "report.json", report.model_dump_json(indent=1) + "\n")
        files.write_text(out / "report.html", render(report))
    return report


def _undefined(
    coded: Program, x: torch.Tensor, real: proof.Floats, expected: proof.Floats
) -> Iterator[str]:
    """Where quantizing makes NaN or infinity of numbers."""
    lost = np.isfinite(real) & ~np.isfinite(expected)
    samples = np.flatnonzero(lost.reshape(len(lost), -1).any(1))
    if len(samples) == 0:
        return
    batch = coded.inputs[0].shape[0]
    start = int(samples[0]) // batch * batch
    where = diagnosis.undefined(coded, x[start : start + batch])
    yield (
        f"{len(samples):,} of {len(expected):,} samples give NaN or infinity once quantized, first "
        f"in {where}: a divisor may round to zero, or a number leave its range; give it 16 bits by "
        "an exception, or calibrate on more samples"
    )


@dataclass(frozen=True)
class _Endurance:
    """A long stream, what the quantized program makes of it, and how its states stray."""

    stream: torch.Tensor
    expected: Rollout
    encodings: tuple[Encoding | None, ...]
    growth: tuple[endure.Growth, ...]

    @classmethod
    def of(cls, program: Program, quantized: Program, source: Data, steps: int) -> _Endurance:
        x = endure.stream(source.samples, steps)
        real, found = program.rollout(x), quantized.rollout(x)
        return cls(x, found, quantized.state_encodings, endure.growth(quantized, real, found))

    def followed_by(
        self, target: Target, artifact: Artifact, folder: Path, contract: Contract,
        progress: Callable[[float], None],
    ) -> tuple[Verdict, ...]:  # fmt: skip
        """Whether an artifact holds the program's states after the last step of one stream."""
        found = target.run(artifact, folder, (self.stream[:1].numpy(),), progress)
        assert found is not None
        states = tuple(state[:1] for state in self.expected.states)
        worst = endure.last_step_lsb(states, found[-len(states) :], self.encodings)
        allowed = 0 if contract.level == "exact" else 1
        asked = f"{allowed} LSB at step {self.stream.shape[1]:,}"
        why = "" if worst <= allowed else "the artifact's states leave the program's"
        return (Verdict("states", target.name, asked, f"{worst} LSB", worst <= allowed, why),)

    def results(self) -> tuple[schema.StateResult, ...]:
        """For the report."""
        return tuple(schema.StateResult(**asdict(g), bounded=g.bounded) for g in self.growth)


def _warnings(
    calibration: Calibration | None, held_out: Data, endurance: _Endurance | None
) -> Iterator[str]:
    if endurance is None:
        return
    seen = held_out.samples.shape[1]
    calibrated = seen if calibration is None else calibration.data.shape[0]
    if seen > calibrated:
        yield (
            f"sequences of {seen} steps were evaluated, ranges come from {calibrated} steps: "
            "calibrate with --stream as long as the longest stream between two resets"
        )
    for grown in endurance.growth:
        if not grown.bounded:
            yield (
                f"the error of the state {grown.state} grows: {max(grown.error):.1%} of its size "
                f"after {grown.steps[-1]:,} steps; reset the stream earlier, or give it more bits"
            )


def _make(
    target: Target, program: Program, out: Path, held_out: Data, say: Listener
) -> tuple[Artifact, Arrays | None, tuple[OpPrecision, ...]]:
    """The artifact, its outputs where this machine can run it, and what it says of itself."""
    folder = out / target.name
    folder.mkdir()
    with say.step(f"{target.title}: lower"):
        artifact = target.lower(program, out / "program.edgemix", folder)
    with say.step(f"{target.title}: run", 1.0) as progress:
        found = target.run(artifact, folder, (held_out.samples,), progress)
    with say.step(f"{target.title}: read back"):
        precision = target.audit(artifact, folder)
    return artifact, found, precision


def _further(order: Order, source: Program, say: Listener) -> tuple[Reshaped, ...]:
    """What changes with each further input shape, from a trace with it."""
    wanted = [s for s in order.shapes if s != source.inputs[0].shape]
    if not wanted:
        return ()
    if source.states or source.quantized or order.shipping.batches or order.shipping.image:
        raise InputError(
            "--shapes is for float models without states, and without --image and --batches",
            do="leave it out",
        )
    split = recipe_of(order).split
    with say.step("trace with further shapes", len(wanted)) as done:
        program, found = rewrites.standard(source, split), []
        for i, shape in enumerate(wanted):
            other = rewrites.standard(sources.load(order.source, shape=shape), split)
            found.append(reshaping.reshaped(program, other))
            done(i + 1)
    return tuple(found)


def _on_shape(
    target: Target, artifact: Artifact, folder: Path, contract: Contract, program: Program,
    change: Reshaped, x: torch.Tensor, say: Listener,
) -> Verdict:  # fmt: skip
    """Whether an artifact follows the program on a further input shape."""
    written = "×".join(map(str, change.shape))
    samples = reshaping.fitted(x, change.shape)
    with say.step(f"{target.title}: run {written}", 1.0) as progress:
        expected = reshaping.at(program, change).run(samples)[0].numpy()
        found = target.run(artifact, folder, (samples.numpy(),), progress)
    assert found is not None
    near = proof.compare(expected, found[0], program.output_encodings[0], contract)
    shown = f"{near.identical:.2%} identical, {near.worst_relative:.2g} of the range at most"
    return Verdict(
        f"fidelity at {written}", target.name, str(contract), shown, near.passed, near.why
    )


def _one_input(program: Program) -> None:
    if len(program.inputs) != 1 or len(program.outputs) != 1:
        raise InputError(
            f"the model has {len(program.inputs)} inputs and {len(program.outputs)} outputs",
            do="deploy takes one of each for now",
        )


def _figures(
    target: Target, artifact: Artifact, folder: Path, order: Order, budgets: Sequence[Budget],
    say: Listener,
) -> Figures:  # fmt: skip
    """Its size, its latency and, where a budget asks, what it takes of an FPGA."""
    size = files.size(folder / artifact.main)
    with say.step(f"{target.title}: time"):
        latency = target.latency(artifact, folder, order.threads)
    asked = any(b.what in RESOURCES and b.target in (None, target.name) for b in budgets)
    if not asked or not isinstance(target, Countable):
        return Figures(latency, size=size)
    with say.step(f"{target.title}: count cells (Yosys takes minutes)"):
        return Figures(latency, target.resources(artifact, folder), size)


def _devices(order: Order, names: Sequence[str], estimator: Estimator | None) -> dict[str, Device]:
    """The devices of an order by the names that its budgets call them by."""
    if order.devices and estimator is None:
        raise InputError(
            "nothing here estimates times on devices", do="leave the devices and their budgets out"
        )
    found = {} if estimator is None else {t: estimator.device(t) for t in order.devices}
    for device in found.values():
        if not device.targets:
            raise InputError(
                f"nothing estimates times on {device.name}",
                do="leave it out; `edgemix measure` and `edgemix synth` tell times",
            )
        if not set(device.targets) & set(names):
            raise InputError(
                f"{device.name} runs none of the targets that are being built",
                do=f"add one of {', '.join(device.targets)}",
            )
    named = {called(text): device for text, device in found.items()}
    if len(named) < len(found):
        raise InputError(
            f"two devices have one name: {', '.join(found)}", do="give each profile its own"
        )
    return named


def _contracts(order: Order, chosen: list[Target]) -> dict[str, Contract]:
    names = [t.name for t in chosen]
    found = {}
    for text in order.contracts:
        name, given, contract = text.partition("=")
        if not given:
            raise InputError(f"no contract: {text}", do=f"write it like {names[0]}=lsb:1@99%")
        if name not in names:
            raise InputError(
                f"the contract {text} is for a target that is not being built: {name}",
                do=f"write it like {names[0]}=lsb:1@99%",
            )
        found[name] = Contract.parse(contract)
    return found


def _run(
    program: Program, x: torch.Tensor, done: Callable[[float], None], share: float
) -> torch.Tensor:
    size = program.inputs[0].shape[0]
    step = max(BATCH // size, 1) * size
    pieces = []
    for start in range(0, len(x), step):
        pieces.append(program.run(x[start : start + step])[0])
        done(min(start + step, len(x)) * (share if share < 0.5 else 1.0))
    return torch.cat(pieces)


def _verdicts(
    order: Order, target: Target, fidelity: Fidelity | None, precision: tuple[OpPrecision, ...]
) -> tuple[Verdict, ...]:
    found = []
    lost = [op for op in precision if not op.kept]
    names = ", ".join(f"{op.op} {op.name}" for op in lost[:_NAMED])
    names += f" and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
    found.append(
        Verdict(
            "precision",
            target.name,
            "every operator as asked",
            f"{len(precision) - len(lost)} of {len(precision)}",
            not lost,
            f"in {lost[0].achieved}: {names}" if lost else "",
        )
    )
    if fidelity is None:
        return tuple(found)
    near = f"{fidelity.identical:.2%} identical, {fidelity.within:.2%} within 1 LSB"
    found.append(
        Verdict(
            "fidelity", target.name, str(fidelity.contract), near, fidelity.passed, fidelity.why
        )
    )
    if fidelity.accuracy is not None and fidelity.float_accuracy is not None:
        drop = 100 * (fidelity.float_accuracy - fidelity.accuracy)
        passed = drop <= order.max_drop + 1e-9
        why = "" if passed else "quantization costs more than asked"
        asked = f"drop ≤ {order.max_drop:g} points"
        found.append(Verdict("accuracy", target.name, asked, f"{drop:+.2f} points", passed, why))
    return tuple(found)


def _proven(target: Target, fidelity: Fidelity, verdicts: tuple[Verdict, ...]) -> dict[str, str]:
    """In words, for the artifact's metadata."""
    near = next(v.found for v in verdicts if v.gate == "fidelity")
    kept = "kept" if all(v.passed for v in verdicts) else "not kept"
    return {
        "fidelity": f"{near}, of {fidelity.samples} samples by {target.runtime}",
        "contract": f"{fidelity.contract}: {kept}",
    }


def _calibrated(made: Outcome) -> schema.CalibrationData | None:
    if made.calibration is None or made.data is None:
        return None
    return schema.CalibrationData(source=made.data.source, **asdict(made.calibration.data))


def _accuracy(outputs: proof.Floats, held_out: Data) -> float | None:
    return None if held_out.labels is None else proof.accuracy(outputs, held_out.labels)


def _layer(quality: diagnosis.LayerQuality) -> schema.Layer:
    e = quality.encoding
    return schema.Layer(
        node=quality.where.node,
        module=quality.where.module or "",
        source=quality.where.source or "",
        op=quality.op,
        sqnr_db=quality.sqnr_db,
        own_sqnr_db=quality.own_db,
        clipped=quality.clipped,
        causes=quality.causes,
        encoding=f"{e.dtype}, scale {e.scale[0]:.6g}, zero point {e.zero_point[0]}",
    )
