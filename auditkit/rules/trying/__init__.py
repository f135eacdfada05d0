"""Rules tried on the series that their own tests give."""
