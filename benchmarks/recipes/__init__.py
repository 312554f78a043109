"""The peers' recipes: what MONAI's tutorials and the source repository do, through MONAI's API."""
