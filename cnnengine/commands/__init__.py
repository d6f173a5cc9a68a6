"""Commands of ``cnnengine``, one module each: ``add(commands)`` tells argparse about it."""
