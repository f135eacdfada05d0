"""What authors write and binding leaves: rule documents, labels, tests' series, locks."""
