"""Pruning after training: smaller dense models, sparse weights, factors, fewer tokens."""
