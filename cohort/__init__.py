"""From scanner files to FA and MD volumes on one grid, and their splits."""
