"""Released files of one project: dit."""
