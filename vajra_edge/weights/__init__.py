"""Weights files: opened without running code, rebuilt as torch networks. Only the build child imports this."""
