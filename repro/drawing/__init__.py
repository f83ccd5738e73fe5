"""Drawing images of numbered noises, in memory or into banks."""
