"""The watch (S14): what the rules find at the sites of this machine, told once."""
