"""Incidents (S15): playbooks, containing at several sites, drills."""
