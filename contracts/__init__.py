"""What every room agrees on: spaces, maps, volume files, conditions, parameters, errors.

Importing it also sets ``OMP_WAIT_POLICY=PASSIVE``, unless the variable is set already. OpenMP's
threads otherwise spin while they wait for work, so that two processes that use torch on one
machine (a training beside the service, two trials on a node) slow each other many times over; one
process alone is as fast either way. OpenMP reads the variable when torch is loaded. Every command
imports this package first, so it stands here, and every process that a command starts inherits it.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
