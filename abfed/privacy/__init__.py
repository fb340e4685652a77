"""Both sides: what a release costs, and how noise is made."""
