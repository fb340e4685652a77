"""Records that data-protection law asks a brand for, and what a person is given who asks."""
