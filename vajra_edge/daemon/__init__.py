"""The daemon: a pure state machine, the supervisor that performs its actions, and their surroundings."""
