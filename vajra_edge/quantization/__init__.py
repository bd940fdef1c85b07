"""INT8: the images, the ranges of tensors, the choice of layers, the quantized graph."""
