"""What turns a trained generator into a version of a registered model."""
