"""Time: one jitted step, the loop around it, and what a run folder holds."""
