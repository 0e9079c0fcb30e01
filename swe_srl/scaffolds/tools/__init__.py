"""Programs that scaffolds put inside containers: each one file, standard library only, Python 3.6 and up."""
