"""Released files of one project: score_sde."""
