"""What is written into a graph: NMS, FP16, INT8 in each library's form, and the probes that measure it."""
