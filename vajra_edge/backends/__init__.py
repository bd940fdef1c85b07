"""The libraries that build and run plans, behind one protocol."""
