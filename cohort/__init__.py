"""From scanner files to maps on one grid, their split, and the group template."""
