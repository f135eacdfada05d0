"""The lowered rule as one SQL statement."""
