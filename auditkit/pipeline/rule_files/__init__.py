"""Rule files: found, checked, listed, tested, made."""
