"""Files to labelled arrays."""
