"""Where a run is kept: its configuration, identity, directory, and the sweeps of many."""
