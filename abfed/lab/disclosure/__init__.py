"""The disclosure gate: what may stand on a page, and what is hidden on it."""
