"""Weights, a short clip and settings for ``vajra-edge demo``; no code path of its own."""
