"""Core ML: ML Program with int8 weights and activations."""
