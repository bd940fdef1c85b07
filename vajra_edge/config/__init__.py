"""What the operator asks for, which change causes which action, and credentials that are never shown."""
