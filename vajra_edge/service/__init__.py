"""The daemon: pure states, the supervisor that performs them, and its surroundings."""
