"""One module a verb; each turns our errors into one line and an exit code."""
