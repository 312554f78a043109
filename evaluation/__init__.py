"""What a set of synthetic maps is worth, next to real maps."""
