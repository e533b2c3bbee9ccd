"""From run directories to tables and figures. Never imports torch."""
