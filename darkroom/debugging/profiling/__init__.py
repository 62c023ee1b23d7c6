"""Where the time of a training goes: its steps' phases, its machine, its operators."""
