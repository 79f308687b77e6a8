"""ONNX: quantize/dequantize form, run in ONNX Runtime."""
