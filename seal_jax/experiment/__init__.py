"""An experiment from its config to its last file, whichever kind it is."""
