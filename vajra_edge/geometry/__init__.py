"""Pure array functions between image pixels and network pixels."""
