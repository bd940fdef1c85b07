"""TensorRT, piece by piece: library, log, network, builder, calibration, DLA, runner."""
