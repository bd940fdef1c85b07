"""Benchmark: the frame path against the bare engine, as figures that can be quoted, kept and compared."""
