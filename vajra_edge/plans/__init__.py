"""Plans at rest: what is wanted, what was achieved, where they lie, which of them failed."""
