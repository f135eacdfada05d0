"""The condition language: syntax tree, grammar, and conditions as text."""
