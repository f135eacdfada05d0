"""Failure modes: absorption, splitting, suppression."""
