"""Mixers of time series: from the last steps of every channel to a forecast of the next ones."""
