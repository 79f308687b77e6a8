"""Handwritten digits: scikit-learn's scans, inside its wheel."""

from __future__ import annotations

import numpy as np

from edgemix.data.base import Data, check_split
from edgemix.extras import need

HELD_OUT = 500
"""Digits that never train or calibrate anything."""


def digits(split: str) -> Data:
    """scikit-learn's handwritten digits [n, 1, 8, 8] in [0, 1]: 1,297 to train, 500 held out.

    The split is stratified and fixed. Alpaydin and Kaynak, "Optical Recognition of Handwritten
    Digits", UCI Machine Learning Repository, 1998.

    Raises:
        InputError: ``split`` is neither ``train`` nor ``heldout``, or scikit-learn is missing.
    """
    check_split("digits", split)
    datasets = need("sklearn.datasets", extra="demo")
    selection = need("sklearn.model_selection", extra="demo")
    everything = datasets.load_digits()
    train, held_out = selection.train_test_split(
        np.arange(len(everything.target)),
        test_size=HELD_OUT,
        random_state=0,
        stratify=everything.target,
    )
    index = train if split == "train" else held_out
    samples = (everything.images[index] / 16).astype(np.float32)[:, None]
    return Data(f"digits:{split}", samples, everything.target[index].astype(np.int64))
