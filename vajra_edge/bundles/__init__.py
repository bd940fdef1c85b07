"""Signed bundles: weights with their class names and wishes, under a signature of somebody whom the device trusts."""
