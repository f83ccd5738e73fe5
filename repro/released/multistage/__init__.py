"""Released files of one project: multistage."""
