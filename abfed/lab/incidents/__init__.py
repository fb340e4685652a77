"""Incidents: playbooks, containing at several sites, drills."""
