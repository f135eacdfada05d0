"""Adapters to other people's programs, each behind its own extra: none imports another."""
