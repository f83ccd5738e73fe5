"""What draws images from numbered noises."""
