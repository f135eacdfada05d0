"""The lowered rule judged token by token."""
