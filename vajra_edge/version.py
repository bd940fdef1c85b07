"""The version; nothing else knows it."""

VERSION = "0.1.0"
