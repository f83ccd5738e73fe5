"""Released files of one project: consistency."""
