"""A DLA core's part of a graph: what it takes, which stretches are worth it, with which ranges."""
