"""Released files of one project: sscd."""
