"""The researcher's machine: plans, runs and reports. Holds no brand data."""
