"""What the daemon says of itself, as documents for people and programs."""
