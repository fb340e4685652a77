"""Data to try abfed on: made-up brands, mock brands of a plan's schema, public data sets."""
