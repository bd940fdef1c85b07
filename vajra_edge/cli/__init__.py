"""What an operator types; each verb turns our errors into one line and an exit code."""
