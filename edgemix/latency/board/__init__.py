"""What runs beside the model: here as a package, on a board as a copy of this folder.

It needs numpy and the model's runtime and nothing else, of edgemix either; boards have Pythons as
old as 3.8. It tells raw times, and what the machine was: statistics are made where they arrive, in
:mod:`edgemix.latency.samples`.
"""
