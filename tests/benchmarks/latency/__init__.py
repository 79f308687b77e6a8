"""The latency estimator: what it is fitted to, and how good it is on models that it never saw."""
