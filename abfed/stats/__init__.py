"""Anywhere: noised totals in, effects out; never a row."""
