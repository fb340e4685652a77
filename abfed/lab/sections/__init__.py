"""The sections of the shipped notebooks' pages, as markup: each answers one question."""
