"""What is said of several rules' matches: correlations and filters."""
