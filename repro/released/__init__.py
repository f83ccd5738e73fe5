"""Files that other projects released: one folder a project."""
