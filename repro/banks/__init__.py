"""Sample banks: folders of numbered images that say where they came from."""
