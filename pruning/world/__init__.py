"""The shipped test bench: a seeded synthetic world, seven task sets and three small trained models.

Everything here can be rebuilt with ``python -m secateur.pruning.world``; see ``docs/world.md``.
"""
