"""What is known of a volume before the network is trained: a closed-form Gaussian model."""
