"""What the operator asks for, checked; which change causes which action; addresses and credentials, never shown."""
