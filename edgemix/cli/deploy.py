"""``edgemix deploy``: a model to artifacts, each proven."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from edgemix.errors import EXIT_GATE, InputError
from edgemix.quantize.levels import Quality
from edgemix.shapes import parse as input_shapes
from edgemix.targets.coreml.shipping import Image, Shipping
from edgemix.targets.coreml.shipping import batches as batch_sizes
from edgemix.targets.coreml.shipping import labels as class_names
from edgemix.targets.fpga.hardware import Backend, Hardware, Interface, LayerKnobs, Strategy
from edgemix.targets.fpga.parts import period_ns


def deploy(
    source: Annotated[
        str,
        typer.Argument(
            help="timm:NAME[?kw=v], package.module:factory (runs that Python code), a .pt2 file, "
            "a saved edgemix program, or a deploy.toml that says all of this."
        ),
    ],
    context: typer.Context,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the artifacts and the report.")
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            help="Calibration data: a .npz or .npy file, images:FOLDER, audio:FOLDER, "
            "arrays:FOLDER, digits:train, keywords:train, random:COUNT. Needed unless the source "
            "comes quantized."
        ),
    ] = None,
    to: Annotated[
        str,
        typer.Option(
            "--to", help="Targets, comma-separated: onnx, tflite, coreml, coreai, hls4ml, rtl."
        ),
    ] = "onnx,tflite,coreml",
    evaluate: Annotated[
        str | None,
        typer.Option(
            help="Data to prove the artifacts on (.npz with x and y). Default: calibration's."
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="int8 (default), int8-float-io, w8, int16x8, w4a8, w6a6, w4a4, mixed, fixed8, "
            "fixed-auto, fixed<W,I>, or a recipe's .toml file."
        ),
    ] = None,
    prune: Annotated[
        str | None,
        typer.Option(
            help="Cut the model before it is quantized: to a share of its multiply-accumulates "
            "like 50%, or parameters=40%, size=500kB, iphone12=1.5ms; or a .toml file with the "
            "options of `edgemix prune`."
        ),
    ] = None,
    quality: Annotated[
        Quality | None,
        typer.Option(
            help="Algorithms that improve the quantization: fast takes seconds, balanced a minute "
            "or so, best several. Default: those that the recipe names, none for those above."
        ),
    ] = None,
    bits: Annotated[
        str | None,
        typer.Option(help="Widths of weights and activations in place of the recipe's: w4a8."),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Calibration samples at most.")] = 512,
    evaluate_samples: Annotated[
        int | None,
        typer.Option(min=1, help="Samples to prove the artifacts on at most; default: all."),
    ] = None,
    step: Annotated[
        bool,
        typer.Option(
            "--step",
            help="Deploy one step of a model that works on sequences; its memory becomes states.",
        ),
    ] = False,
    chunk: Annotated[
        int | None, typer.Option(min=1, help="With --step: steps that are taken at once.")
    ] = None,
    unroll: Annotated[
        bool,
        typer.Option(
            "--unroll",
            help="Deploy a whole sequence as one program, its recurrent layers written out: for "
            "models that look ahead.",
        ),
    ] = False,
    stream: Annotated[
        int,
        typer.Option(
            min=2,
            help="Steps between two resets that a model with states has to stand; calibration and "
            "proof run samples behind each other for as long.",
        ),
    ] = 1000,
    device: Annotated[
        list[str] | None,
        typer.Option(
            help="Device that times are estimated for, by name or .toml file; may be given again."
        ),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            help="Budget of time, of a device's time, of the artifact's size or of an FPGA: "
            "onnx=2ms, latency=2us, iphone12=2ms, size=5MB, lut=50%, rtl.dsp=100 (lut, ff, dsp, "
            "bram, uram); may be given again. Exceeding it: exit 1."
        ),
    ] = None,
    contract: Annotated[
        list[str] | None,
        typer.Option(
            help="Fidelity asked of a target: tflite=lsb:1@99%, onnx=exact, coreml=decisions@99%."
        ),
    ] = None,
    max_drop: Annotated[
        float,
        typer.Option(min=0, help="Accuracy that all of it may cost, in points."),
    ] = 1.0,
    threads: Annotated[int, typer.Option(min=1, help="Threads for latency measurements.")] = 1,
    part: Annotated[
        str, typer.Option(help="FPGA part with package and speed grade.")
    ] = Hardware.part,
    clock: Annotated[
        str, typer.Option(help="FPGA clock, like 5ns or 200MHz.")
    ] = f"{Hardware.clock_ns:g}ns",
    backend: Annotated[
        Backend, typer.Option(help="HLS compiler of hls4ml's C++.")
    ] = Hardware.backend,
    io: Annotated[
        Interface,
        typer.Option(
            help="Whole tensors at once, or pixel after pixel through line buffers (hls4ml).",
        ),
    ] = Hardware.interface,
    reuse: Annotated[
        int,
        typer.Option(min=1, help="Products that share a multiplier (hls4ml)."),
    ] = Hardware.reuse,
    strategy: Annotated[
        Strategy,
        typer.Option(
            help="How products become logic; RTL: few stages (latency) or little logic (others)."
        ),
    ] = Hardware.strategy,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            help="Knobs of layers by module path or node name: "
            "'stages.0.*=reuse:4,strategy:resource'; may be given again.",
        ),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(
            help="Core ML takes images: scale=1/255,bias=-0.5:-0.5:-0.5,color=RGB, where the model "
            "sees pixel · scale + bias."
        ),
    ] = None,
    batches: Annotated[
        str | None, typer.Option(help="Batch sizes that Core ML takes, like 1,4,8.")
    ] = None,
    shapes: Annotated[
        str | None,
        typer.Option(
            help="Further input shapes that Core ML takes, like 1x50x40,1x100x40; the model is "
            "traced again with each, and the package proven with each."
        ),
    ] = None,
    author: Annotated[str, typer.Option(help="Written into Core ML's package.")] = "",
    licence: Annotated[str, typer.Option("--license", help="Written into Core ML's package.")] = "",
    labels: Annotated[
        Path | None,
        typer.Option(help="File with a class's name on each line, written into Core ML's package."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace what the output folder holds.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Quantize a model, lower it to every target, prove each artifact, write a report.

    A deploy.toml in the place of the source says what the options say; options win over it.

    Exit code 0: every gate passed; 1: a budget, contract, precision or accuracy gate failed;
    2: the input cannot be used.
    """
    from edgemix import pipeline
    from edgemix.cli import console
    from edgemix.latency.estimator import house
    from edgemix.order import Order
    from edgemix.quantize.prune.recipe import Pruning

    file = None
    if source.endswith(".toml"):
        from edgemix import deployment

        file = deployment.read(Path(source), out).order
        deployment.importable(Path(source).parent)
    elif out is None:
        raise InputError("there is no output folder", do="name it with --out")
    elif evaluate is None and calibrate is None:
        raise InputError("there is no data", do="name it with --calibrate, or with --evaluate")
    order = Order(
        source=source,
        targets=tuple(name.strip() for name in to.split(",") if name.strip()),
        out=out or Path(),
        calibrate=calibrate,
        evaluate=evaluate or calibrate or "",
        recipe=recipe,
        quality=quality,
        pruning=None if prune is None else Pruning.load(prune),
        bits=bits,
        samples=samples,
        evaluate_samples=evaluate_samples,
        step=step or chunk is not None,
        chunk=chunk,
        unroll=unroll,
        stream=stream,
        devices=tuple(device or ()),
        budgets=tuple(budget or ()),
        contracts=tuple(contract or ()),
        max_drop=max_drop,
        threads=threads,
        hardware=Hardware(
            part,
            period_ns(clock),
            backend,
            io,
            reuse,
            strategy,
            tuple(LayerKnobs.parse(text) for text in layer or ()),
        ),
        shipping=Shipping(
            None if image is None else Image.parse(image),
            () if batches is None else batch_sizes(batches),
            author=author,
            licence=licence,
            labels=() if labels is None else class_names(labels),
        ),
        shapes=() if shapes is None else input_shapes(shapes),
        force=force,
        command=("edgemix", *sys.argv[1:]),
    )
    if file is not None:
        order = replace(deployment.over(file, order, _given(context)), command=order.command)
    if order.unroll and order.step:
        raise InputError("--unroll and --step ask for different programs", do="give one of them")
    with console.Bars(quiet=quiet or as_json) as bars:
        report = pipeline.deploy(order, bars, house())
    if as_json:
        console.print_json(report.model_dump(mode="json"))
    elif not quiet:
        console.print_report(report)
        console.say(f"report: {order.out / 'report.html'}")
    if not report.passed:
        raise typer.Exit(EXIT_GATE)


def _given(context: typer.Context) -> list[str]:
    """The options that stand on the command line."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return [name for name, s in sources.items() if s is not None and s.name == "COMMANDLINE"]
