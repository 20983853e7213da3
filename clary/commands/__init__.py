"""The commands of the command line, a file each: see `clary.cli`."""
