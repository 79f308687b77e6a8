"""Algorithms that make quantization hold, one file each."""
