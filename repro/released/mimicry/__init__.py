"""Released files of one project: mimicry."""
