"""The controls of the brief: how each stands, by facts and by trying to break them."""
