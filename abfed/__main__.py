"""`python -m abfed`: what the console script does, where scripts aren't on the path."""

from abfed.cli.main import script

if __name__ == "__main__":
    script()
