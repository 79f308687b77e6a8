"""Post-training quantization: ranges from data, scales from ranges, q/dq nodes in the graph."""

if __name__ != "edgemix.quantize":
    raise ImportError(f"import edgemix.quantize, not {__name__}")
