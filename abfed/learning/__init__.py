"""Anywhere: networks, private training and evaluation. Reads no file."""
