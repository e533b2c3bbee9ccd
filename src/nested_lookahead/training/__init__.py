"""How it is learned: the trainer, evaluations, schedules, hardware, processes. Knows no file."""
