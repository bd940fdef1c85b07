"""Outputs: what the daemon sees, said once more in the words of other programs, on topics of theirs."""
