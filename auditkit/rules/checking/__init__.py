"""Reading rule files and finding what is wrong with them."""
