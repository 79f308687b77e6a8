"""Whether int8 pays: float beside integers, ours beside the peers', in the same runtime and run.

``python -m tests.benchmarks.speed run FOLDER`` builds each model once (minutes), measures all of its
artifacts in turns, and keeps what was found in ``speed.json``; ``… table`` prints it. Weights and
data are drawn: times do not depend on them. Each system is quantized whole, per channel, 8 bits:
onnxruntime's ``quantize_static`` (QDQ, uint8 activations) and ai-edge-quantizer's static recipe.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import track

from edgemix import files
from edgemix.latency.board import runtimes
from edgemix.latency.host import environment

RESULTS = Path(__file__).with_name("speed.json")
_PRESETS = "edgemix.models.presets"
SYSTEMS = {
    "poolformer_s12": "timm:poolformer_s12",
    "caformer_s18": "timm:caformer_s18",
    "iformer_small": f"{_PRESETS}:iformer_small",
    "ffnet_1": f"{_PRESETS}:ffnet_1",
    "efficientformer_l1": "timm:efficientformer_l1",
    "efficientformerv2_s0": "timm:efficientformerv2_s0",
    "nextvit_small": "timm:nextvit_small",
    "cas_vit_xs": f"{_PRESETS}:cas_vit_xs",
    "edgenext_xx_small": "timm:edgenext_xx_small",
    "affnet_et": f"{_PRESETS}:affnet_et",
}
_SAMPLES, _ROUNDS = 8, 30

app = typer.Typer(add_completion=False, help=__doc__)


@app.command()
def run(
    folder: Annotated[Path, typer.Argument(help="Where artifacts are kept between runs.")],
    systems: Annotated[str, typer.Option(help="Comma-separated; default: all.")] = "",
    results: Path = RESULTS,
) -> None:
    """Build what is missing, and measure."""
    found = json.loads(results.read_text()) if results.exists() else {}
    chosen = systems.split(",") if systems else list(SYSTEMS)
    for name in track(chosen, "measuring", console=Console(stderr=True)):
        place = folder / name
        _build(name, place)
        found[name] = _measured(place)
        found["environment"] = environment()
        files.write_text(results, json.dumps(found, indent=1) + "\n")


@app.command()
def table(results: Path = RESULTS) -> None:
    """Print what was measured, for the README."""
    found = json.loads(results.read_text())
    columns = ("float", "int8", "peer")
    print("| p50, ms | ONNX Runtime: float | int8 | quantize_static | float / int8 | LiteRT: float |"
          " int8 | ai-edge-quantizer | float / int8 |")  # fmt: skip
    print("|---|" + "---:|" * 8)
    for name in SYSTEMS:
        if name not in found:
            continue
        cells = []
        for runtime in ("onnx", "tflite"):
            ms = [found[name].get(f"{runtime} {c}") for c in columns]
            cells += ["refused" if m is None else f"{m:.1f}" for m in ms]
            cells.append(f"{ms[0] / ms[1]:.2f}" if ms[0] and ms[1] else "")
        print(f"| {name} | {' | '.join(cells)} |")


def _build(name: str, place: Path) -> None:
    from edgemix import sources

    place.mkdir(parents=True, exist_ok=True)
    data = place / "x.npz"
    if not data.exists():
        shape = sources.load(SYSTEMS[name]).inputs[0].shape
        drawn = np.random.default_rng(0).normal(size=(_SAMPLES, *shape[1:]))
        np.savez(data, x=drawn.astype(np.float32))
    for recipe in ("float32", "int8"):
        if (place / recipe).exists():
            continue
        order = (
            "deploy", SYSTEMS[name], "--out", str(place / recipe), "--calibrate", str(data),
            "--evaluate-samples", "1", "--recipe", recipe, "--to", "onnx,tflite", "--quiet",
        )  # fmt: skip
        subprocess.run([sys.executable, "-m", "edgemix", *order], check=False)
    for peer, make in (("peer.onnx", _quantize_static), ("peer.tflite", _ai_edge)):
        if not (place / peer).exists():
            make(place, np.load(data)["x"], place / peer)


def _quantize_static(place: Path, x: np.ndarray[Any, Any], made: Path) -> None:
    import onnxruntime as ort
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    source = place / "float32" / "onnx" / "model.onnx"
    takes = ort.InferenceSession(str(source)).get_inputs()[0].name

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        left = iter(x)

        def get_next(self) -> dict[str, Any] | None:
            sample = next(self.left, None)
            return None if sample is None else {takes: sample[None]}

    ready = place / "ready.onnx"
    quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
    quantize_static(
        str(ready), str(made), Reader(), per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip


def _ai_edge(place: Path, x: np.ndarray[Any, Any], made: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    source = str(place / "float32" / "tflite" / "model.tflite")
    ((name, detail),) = Interpreter(source).get_signature_runner().get_input_details().items()
    moved = tuple(detail["shape"][1:]) != x.shape[1:]
    samples = x.transpose(0, 2, 3, 1) if moved else x
    work = quantizer.Quantizer(source, recipe.static_wi8_ai8())
    ranges = work.calibrate({"serving_default": [{name: s[None]} for s in samples]})
    work.quantize(ranges).export_model(str(made))


def _measured(place: Path) -> Mapping[str, float]:
    """p50 in ms of every artifact that there is, all in turns: none has a quieter machine."""
    artifacts = {
        f"{runtime} {what}": place / path
        for runtime, suffix in (("onnx", "onnx"), ("tflite", "tflite"))
        for what, path in (
            ("float", f"float32/{runtime}/model.{suffix}"),
            ("int8", f"int8/{runtime}/model.{suffix}"),
            ("peer", f"peer.{suffix}"),
        )
    }
    calls: dict[str, Callable[[], object]] = {}
    for name, path in artifacts.items():
        try:
            calls[name] = next(runtimes.cases(str(path), threads=1)).call
        except Exception as error:  # what a runtime refuses is a result
            print(f"{place.name}, {name}: {str(error).splitlines()[0][:120]}", file=sys.stderr)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(_ROUNDS + 3):
        for name, call in calls.items():
            start = time.perf_counter_ns()
            call()
            if turn >= 3:
                times[name].append((time.perf_counter_ns() - start) / 1e6)
    return {name: round(median(own), 3) for name, own in times.items()}


if __name__ == "__main__":
    app()
