"""The images that `predict` is given: files, folders, archives, URLs, standard input."""
