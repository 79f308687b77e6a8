"""Post-training quantization: ranges from data, scales from ranges, q/dq nodes in the graph."""

import logging

if __name__ != "edgemix.quantize":
    raise ImportError(f"import edgemix.quantize, not {__name__}")

# torchao's import logs a deprecation of torch's that no user of edgemix can act on.
logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
