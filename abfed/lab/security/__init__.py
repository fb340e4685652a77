"""The controls S1 to S22: how each stands, by facts and by trying to break them."""
