"""Commands of ``cnnengine``, one file each: ``add(commands)`` adds its parser, whose ``run`` the command line calls."""
