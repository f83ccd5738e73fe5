"""Released files of one project: uvit."""
