"""The command line: thin commands over the library. Nothing heavy is imported until one runs."""

from __future__ import annotations

import sys

import typer

from edgemix.errors import EXIT_INPUT, EdgemixError

app = typer.Typer(
    name="edgemix",
    help="Quantize a PyTorch model once, lower it to ONNX, TFLite, Core ML and FPGA, prove each.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """The entry point: a mistake of the user ends in a message and exit code 2, not a traceback."""
    from edgemix.cli import commands  # noqa: F401  (registers the commands)

    try:
        app()
    except EdgemixError as error:
        print(f"error: {error.message}", file=sys.stderr)
        sys.exit(EXIT_INPUT)
