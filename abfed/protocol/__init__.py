"""Ground floor, both sides: frozen types and pure functions. Opens no file, socket or database."""
