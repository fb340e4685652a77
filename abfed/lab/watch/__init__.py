"""The watch: what the rules find at the sites of this machine, told once."""
