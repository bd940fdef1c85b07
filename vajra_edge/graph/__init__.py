"""The ONNX network with a known signature: export, simplify, NMS, precision passes."""
