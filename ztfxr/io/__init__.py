"""Files to labeled arrays."""
