"""Scores of trained adapters."""
