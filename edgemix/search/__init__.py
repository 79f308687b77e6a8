"""Trials of recipes and models, and which of them nothing else beats."""
