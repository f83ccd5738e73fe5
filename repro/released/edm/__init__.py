"""Released files of one project: edm."""
