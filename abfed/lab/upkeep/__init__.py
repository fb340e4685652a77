"""Keeping sites sound: the doctor, backups, keys, logs, what an installation is made of."""
