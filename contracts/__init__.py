"""What every room agrees on: spaces, maps, volume files, conditions, parameters, errors."""
