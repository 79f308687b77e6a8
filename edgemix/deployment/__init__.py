"""Deployments as files: ``deploy.toml``, its schema, and errors that name a line of it.

    out = "build"                       # relative to this file, as every path here
    targets = ["onnx", "coreml"]
    devices = ["iphone12"]

    [model]
    source = "timm:mobilenetv3_small_050"

    [data]
    calibrate = "images:calibration"
    evaluate = "images:heldout"

    [recipe]
    name = "int8"
    quality = "balanced"

    [budget]
    onnx = "5ms"
    iphone12 = "2ms"
    size = "5MB"
    max_drop = 0.5

Options on the command line win over the file.
"""

from edgemix.deployment.over import over
from edgemix.deployment.read import NONE, Deployment, importable, parse, read

__all__ = ["NONE", "Deployment", "importable", "over", "parse", "read"]
