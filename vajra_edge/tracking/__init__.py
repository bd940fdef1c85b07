"""Tracking: which detection of this frame is which of the frames before."""
