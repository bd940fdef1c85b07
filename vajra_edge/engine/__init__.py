"""Graph -> plan -> runner: specification, fingerprint, store, backends, the gate."""
