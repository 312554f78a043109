"""What is known of a volume before any training: a closed-form Gaussian model."""
