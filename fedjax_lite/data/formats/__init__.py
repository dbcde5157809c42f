"""Readers of the files that people have, one a format; `arrange` makes what each has read a population."""
