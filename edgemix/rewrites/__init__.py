"""Rewrites: graph to equivalent graph, one file each.

``STANDARD`` is the order in which every program takes them, with the reason beside each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgemix.program import Program
    from edgemix.rewrites.base import Rewrite

STANDARD = (
    "open_contexts",  # first: others do not look into graphs of graphs
    "unroll_scans",  # the same; after contexts, under which a scan may stand
    "plain_casts",  # before all others: none should meet assertions
    "functionalize",  # before the others, which take every node for a value
    "open_recurrent",  # before folding constants: it adds up biases
    "fold_constants",  # before folding norms: they ask what is constant
    "plain_views",  # early; after functionalizing, for which a copy is no name of its source
    "unpack_views",  # early: later rewrites and the quantizer look at single values
    "join_activations",  # before lifting scalars: their numbers are no values
    "join_lengths",  # the same; after plain views, which may stand in front of the division
    "plain_powers",  # after joining activations, some of which have powers; before lifting scalars
    "plain_slopes",  # after folding constants; before asking for tables and ranges
    "implicit_expands",  # after plain views, which write down what is expanded
    "implicit_strides",  # before pads, which become a pool's
    "implicit_pads",  # before lifting scalars and all that asks for ranges
    "open_folds",  # before all that looks for linear operators
    "open_windows",  # the same; and before narrowing moves: windows of windows have six axes
    "resize_products",  # before lifting scalars and all that looks for linear operators
    "fourier_products",  # the same; after folding and unpacking, so that it meets fewer kinds
    "fold_constants",  # again: parts of complex and of unpacked values may be constants
    "einsum_products",  # after Fourier's, which part complex ones; before all that asks for linear
    "constant_products",  # the same; after folding constants, such as a transposed weight
    "fold_norm",  # before lifting scalars: the fold makes constants of its own
    "join_branches",  # after folding norms: they stand between branches and their sum
    "lift_scalars",  # after folding: what is left is arithmetic that has to be quantized
    "open_attention",  # anywhere: it makes no numbers to lift
    "fold_softmax",  # after opening attention, which has one
    "part_linear",  # before folding scales: that of attention is one part's alone
    "narrow_sums",  # before narrowing moves, which stop at arithmetic
    "narrow_moves",  # after parting: queries, keys and values were one of six axes, with 3 readers
    "fold_scale",  # after lifting: a factor is a constant by then
    "split_leak",  # after lifting: a leak is a constant by then
)


def load(name: str, states: int = 0) -> Rewrite:
    """A rewrite by name, for a program with so many states."""
    from edgemix.rewrites.constant_products import ConstantProducts
    from edgemix.rewrites.einsum_products import EinsumProducts
    from edgemix.rewrites.fold_constants import FoldConstants
    from edgemix.rewrites.fold_norm import FoldNorm
    from edgemix.rewrites.fold_scale import FoldScale
    from edgemix.rewrites.fold_softmax import FoldSoftmax
    from edgemix.rewrites.fourier_products import FourierProducts
    from edgemix.rewrites.functionalize import Functionalize
    from edgemix.rewrites.implicit_expands import ImplicitExpands
    from edgemix.rewrites.implicit_pads import ImplicitPads
    from edgemix.rewrites.implicit_strides import ImplicitStrides
    from edgemix.rewrites.join_activations import JoinActivations
    from edgemix.rewrites.join_branches import JoinBranches
    from edgemix.rewrites.join_lengths import JoinLengths
    from edgemix.rewrites.lift_scalars import LiftScalars
    from edgemix.rewrites.narrow_moves import NarrowMoves
    from edgemix.rewrites.narrow_sums import NarrowSums
    from edgemix.rewrites.open_attention import OpenAttention
    from edgemix.rewrites.open_contexts import OpenContexts
    from edgemix.rewrites.open_folds import OpenFolds
    from edgemix.rewrites.open_recurrent import OpenRecurrent
    from edgemix.rewrites.open_windows import OpenWindows
    from edgemix.rewrites.part_linear import PartLinear
    from edgemix.rewrites.plain_casts import PlainCasts
    from edgemix.rewrites.plain_powers import PlainPowers
    from edgemix.rewrites.plain_slopes import PlainSlopes
    from edgemix.rewrites.plain_views import PlainViews
    from edgemix.rewrites.resize_products import ResizeProducts
    from edgemix.rewrites.split_division import SplitDivision
    from edgemix.rewrites.split_leak import SplitLeak
    from edgemix.rewrites.split_norm import SplitNorm
    from edgemix.rewrites.split_resize import SplitResize
    from edgemix.rewrites.split_softmax import SplitSoftmax
    from edgemix.rewrites.unpack_views import UnpackViews
    from edgemix.rewrites.unroll_scans import UnrollScans

    known = (
        ConstantProducts, EinsumProducts, FoldConstants, FoldNorm, FoldScale, FoldSoftmax,
        FourierProducts, Functionalize, ImplicitExpands, ImplicitPads, ImplicitStrides,
        JoinActivations, JoinBranches, JoinLengths,
        LiftScalars, NarrowMoves, NarrowSums, OpenAttention, OpenContexts, OpenFolds, OpenRecurrent,
        OpenWindows, PartLinear, PlainCasts, PlainPowers, PlainSlopes, PlainViews,
        ResizeProducts, SplitDivision, SplitNorm, SplitResize, SplitSoftmax, UnpackViews,
        UnrollScans,
    )  # fmt: skip
    if name == SplitLeak.name:
        return SplitLeak(states)
    kinds: dict[str, type[Rewrite]] = {r.name: r for r in known}
    return kinds[name]()


def standard(program: Program, split: tuple[str, ...] = ()) -> Program:
    """The standard rewrites in their order, then the splits that a recipe asks for."""
    from edgemix.rewrites.base import apply

    names = (*STANDARD, *(f"split_{composite}" for composite in split))
    return apply(program, *(load(name, len(program.states)) for name in names))
