"""Trials of recipes, widths and models, and which of them nothing else beats.

    [search]
    trials = 20
    timeout = 7200                      # seconds after which no trial starts
    recipes = ["int8", "w8", "mixed"]
    quality = ["none", "balanced"]
    bits = ["w8a8", "w4a8"]
    objectives = ["loss", "onnx", "iphone12", "size"]

    [[search.variants]]
    source = "models:wide"
    name = "wide"

in a ``deploy.toml``, see :mod:`edgemix.deployment`; what is left out does not vary.
"""
