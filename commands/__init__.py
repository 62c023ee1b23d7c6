"""What the commands of run.py do, one module each, imported when the command is used."""
