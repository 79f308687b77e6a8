"""Latency: numbers with a kind, budgets and verdicts."""
